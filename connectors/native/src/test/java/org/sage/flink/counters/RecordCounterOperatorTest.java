package org.sage.flink.counters;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.CounterDelta;
import org.sage.flink.wire.WireBatch;
import org.sage.flink.wire.WireRecord;

class RecordCounterOperatorTest {

    private static final byte[] RECORD =
            new WireRecord("r", "v".getBytes(StandardCharsets.UTF_8), 0, null, Map.of(), "")
                    .encode();

    @Test
    void recordsPassUntouchedAndInOrder() throws Exception {
        try (var tally = opened("in.read")) {
            byte[] other = {(byte) 0x93, 1, 2, 3};

            tally.processElement(new StreamRecord<>(RECORD, 7));
            tally.processElement(new StreamRecord<>(other));

            assertArrayEquals(RECORD, tally.extractOutputValues().get(0));
            assertArrayEquals(other, tally.extractOutputValues().get(1));
            assertEquals(7, tally.extractOutputStreamRecords().get(0).getTimestamp());
        }
    }

    @Test
    void eachRecordCountsOnceInEveryCounterBeforeTheBarrier() throws Exception {
        try (var tally = opened("in.read", "in.emitted")) {
            send(tally, 3);
            assertNull(tally.getSideOutput(RecordCounterOperator.DELTAS));

            tally.prepareSnapshotPreBarrier(1);

            assertEquals(Map.of("in.read", 3L, "in.emitted", 3L), told(tally));
        }
    }

    @Test
    void nothingIsToldTwiceAndNothingWaitsBehindTheBarrier() throws Exception {
        try (var tally = opened("in.read")) {
            send(tally, 3);
            tally.prepareSnapshotPreBarrier(1);
            tally.snapshot(1, 1);
            tally.prepareSnapshotPreBarrier(2);
            send(tally, 2);
            tally.endInput();

            assertEquals(2, tally.getSideOutput(RecordCounterOperator.DELTAS).size());
            assertEquals(Map.of("in.read", 5L), told(tally));
        }
    }

    @Test
    void aReceiptIsAddedAndGoesNoFurther() throws Exception {
        try (var tally = opened("split.read", "split.emitted")) {
            send(tally, 9);
            tally.processElement(new StreamRecord<>(CounterDelta.encode(Map.of("split.read", -8L))));

            tally.prepareSnapshotPreBarrier(1);

            assertEquals(9, tally.extractOutputValues().size());
            assertEquals(Map.of("split.read", 1L, "split.emitted", 9L), told(tally));
        }
    }

    @Test
    void countsAreToldOnceASecondWithoutABarrier() throws Exception {
        try (var tally = opened("in.read")) {
            tally.setProcessingTime(10_000);
            send(tally, 4);
            tally.setProcessingTime(10_999);
            assertNull(tally.getSideOutput(RecordCounterOperator.DELTAS));

            tally.setProcessingTime(11_000);

            assertEquals(Map.of("in.read", 4L), told(tally));
        }
    }

    @Test
    void aTallyHasNoStateThatASavepointCouldMiss() throws Exception {
        try (var tally = opened("in.read")) {
            send(tally, 4);
            tally.prepareSnapshotPreBarrier(1);

            OperatorSubtaskState snapshot = tally.snapshot(1, 1);

            assertFalse(snapshot.hasState());
        }
    }

    @Test
    void everySizeOfReceiptIsToldFromEveryRecord() {
        for (int size : List.of(0, 15, 16, 70_000)) {
            Map<String, Long> moved = new LinkedHashMap<>();
            IntStream.range(0, size).forEach(n -> moved.put("c" + n, (long) -n));
            byte[] receipt = CounterDelta.encode(moved);
            Map<String, Long> back = new HashMap<>();

            CounterDelta.addTo(back, receipt);

            assertTrue(CounterDelta.is(receipt));
            assertEquals(moved, back);
        }
        assertFalse(CounterDelta.is(RECORD));
        assertFalse(CounterDelta.is(WireBatch.encode(List.of(RECORD), RECORD.length)));
        assertFalse(CounterDelta.is(new byte[0]));
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> opened(String... counters)
            throws Exception {
        var harness =
                new OneInputStreamOperatorTestHarness<byte[], byte[]>(
                        new RecordCounterOperator(List.of(counters)), 4, 1, 0);
        harness.setup(BytePrimitiveArraySerializer.INSTANCE);
        harness.open();
        return harness;
    }

    private static void send(OneInputStreamOperatorTestHarness<byte[], byte[]> tally, int records)
            throws Exception {
        for (int n = 0; n < records; n++) {
            tally.processElement(new StreamRecord<>(RECORD));
        }
    }

    private static Map<String, Long> told(
            OneInputStreamOperatorTestHarness<byte[], byte[]> tally) {
        Map<String, Long> sum = new HashMap<>();
        tally.getSideOutput(RecordCounterOperator.DELTAS)
                .forEach(receipt -> CounterDelta.addTo(sum, receipt.getValue()));
        return sum;
    }
}
