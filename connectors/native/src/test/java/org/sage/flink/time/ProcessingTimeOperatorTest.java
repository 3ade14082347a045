package org.sage.flink.time;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.WireRecord;

class ProcessingTimeOperatorTest {

    @Test
    void aRecordHasTheTimeOfTheClockAndTheWatermarkFollowsItWithoutRecords() throws Exception {
        try (Harness harness = new Harness()) {
            harness.open();
            harness.setProcessingTime(1_000);
            send(harness);
            harness.setProcessingTime(1_000 + ProcessingTimeOperator.INTERVAL_MS);

            assertEquals(List.of("watermark 999", "1000", "watermark 1199"), output(harness));
        }
    }

    @Test
    void theTimeDoesNotGoBackNeitherAfterARestart() throws Exception {
        OperatorSubtaskState snapshot;
        try (Harness harness = new Harness()) {
            harness.open();
            harness.setProcessingTime(5_000);
            harness.setProcessingTime(4_000);
            send(harness);
            snapshot = harness.snapshot(1, 1);
            assertEquals(List.of("watermark 4999", "5000"), output(harness));
        }
        try (Harness harness = new Harness()) {
            harness.initializeState(snapshot);
            harness.open();
            harness.setProcessingTime(3_000);
            send(harness);

            assertEquals(List.of("watermark 4999", "5000"), output(harness));
        }
    }

    @Test
    void noWatermarkComesBehindTheLastOne() throws Exception {
        try (Harness harness = new Harness()) {
            harness.open();
            harness.processWatermark(7);
            harness.processWatermark(Watermark.MAX_WATERMARK);
            harness.setProcessingTime(1_000);

            assertEquals(List.of("watermark " + Long.MAX_VALUE), output(harness));
        }
    }

    private static final class Harness extends OneInputStreamOperatorTestHarness<byte[], byte[]> {

        Harness() throws Exception {
            super(new ProcessingTimeOperator());
        }
    }

    private static void send(Harness harness) throws Exception {
        WireRecord record = new WireRecord("id", new byte[] {1}, 7, null, Map.of(), "");
        harness.processElement(new StreamRecord<>(record.encode()));
    }

    /** The watermarks, and the times of the records. */
    private static List<String> output(Harness harness) {
        List<String> found = new ArrayList<>();
        for (Object out : harness.getOutput()) {
            if (out instanceof Watermark) {
                found.add("watermark " + ((Watermark) out).getTimestamp());
            } else {
                StreamRecord<?> element = (StreamRecord<?>) out;
                WireRecord record = WireRecord.decode((byte[]) element.getValue());
                assertEquals(element.getTimestamp(), record.timestampMs());
                found.add(Long.toString(record.timestampMs()));
            }
        }
        return found;
    }
}
