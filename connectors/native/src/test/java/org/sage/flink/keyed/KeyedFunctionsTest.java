package org.sage.flink.keyed;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.operators.KeyedProcessOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.CounterDelta;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.WireRecord;

class KeyedFunctionsTest {

    private static final FailedRecords FAILED = new FailedRecords("step", "job", "run");

    @Test
    void changesAreThoseSinceTheSnapshotThatWasRestored() throws Exception {
        OperatorSubtaskState snapshot;
        try (Harness harness = harness(new ChangesOnlyFunction(FAILED, "", 0))) {
            harness.open();
            send(harness, "a", "1", 0);
            send(harness, "b", "2", 0);
            snapshot = harness.snapshot(1, 1);
        }
        try (Harness harness = harness(new ChangesOnlyFunction(FAILED, "", 0))) {
            harness.initializeState(snapshot);
            harness.open();
            send(harness, "a", "1", 0);
            send(harness, "b", "3", 0);
            send(harness, "c", "1", 0);

            assertEquals(List.of("b=3", "c=1"), passed(harness));
            assertEquals(Map.of("step.dropped", 1L), counts(harness));
        }
    }

    @Test
    void aValuePassesAgainAfterTheTimeToLive() throws Exception {
        try (Harness harness = harness(new ChangesOnlyFunction(FAILED, "", 1_000))) {
            harness.open();
            for (long nowMs : new long[] {0, 999, 1_000, 1_999, 2_001}) {
                harness.setStateTtlProcessingTime(nowMs);
                send(harness, "a", "1", 0);
            }

            assertEquals(List.of("a=1", "a=1", "a=1"), passed(harness));
        }
    }

    @Test
    void theCountsOfAnEndedWindowAreNotKept() throws Exception {
        try (Harness harness = harness(new RateLimitFunction(FAILED, 1, 1_000, null, null))) {
            harness.open();
            send(harness, "a", "1", 100);
            send(harness, "a", "2", 200);
            send(harness, "a", "3", 1_100);
            send(harness, "b", "4", 900);
            harness.processWatermark(999);
            send(harness, "a", "5", 900);
            send(harness, "a", "6", 1_200);

            assertEquals(List.of("a=1", "a=3", "b=4"), passed(harness));
            assertEquals(Map.of("step.dropped", 3L), counts(harness));
            assertEquals(1, harness.numKeyedStateEntries());
            harness.processWatermark(1_999);
            assertEquals(0, harness.numKeyedStateEntries());
            assertEquals(0, harness.numEventTimeTimers());
        }
    }

    @Test
    void whatIsRefusedIsADeadLetterWithItsReason() throws Exception {
        RateLimitFunction function = new RateLimitFunction(FAILED, 1, 1_000, "over", "late");
        try (Harness harness = harness(function)) {
            harness.open();
            send(harness, "a", "1", 100);
            send(harness, "a", "2", 200);
            send(harness, null, "3", 200);
            harness.processWatermark(999);
            send(harness, "a", "4", 100);

            assertEquals(List.of("a=1"), passed(harness));
            assertEquals(Map.of("step.dead_lettered", 3L), counts(harness));
            List<String> reasons = new ArrayList<>();
            for (StreamRecord<byte[]> letter : harness.getSideOutput(FailedRecords.TAG)) {
                byte[] reason = WireRecord.decode(letter.getValue())
                        .headers().get("sage.dead-letter.reason");
                reasons.add(new String(reason));
            }
            assertEquals(
                    List.of("over", "has no key: put .key_by(name, field) before this step", "late"),
                    reasons);
        }
    }

    private static final class Harness
            extends KeyedOneInputStreamOperatorTestHarness<String, byte[], byte[]> {

        Harness(KeyedStepFunction function) throws Exception {
            super(new KeyedProcessOperator<>(function), new Keys.OfRecord(), Types.STRING);
        }
    }

    private static Harness harness(KeyedStepFunction function) throws Exception {
        return new Harness(function);
    }

    private static void send(Harness harness, String key, String value, long timestampMs)
            throws Exception {
        byte[] keyBytes = key == null ? null : key.getBytes();
        WireRecord record =
                new WireRecord("id", value.getBytes(), timestampMs, keyBytes, Map.of(), "");
        harness.processElement(new StreamRecord<>(record.encode()));
    }

    /** {@code key=value} of the records in the output. */
    private static List<String> passed(Harness harness) {
        List<String> found = new ArrayList<>();
        for (byte[] out : harness.extractOutputValues()) {
            if (!CounterDelta.is(out)) {
                WireRecord record = WireRecord.decode(out);
                found.add(new String(record.key()) + "=" + new String(record.value()));
            }
        }
        return found;
    }

    private static Map<String, Long> counts(Harness harness) {
        Map<String, Long> counts = new HashMap<>();
        for (byte[] out : harness.extractOutputValues()) {
            if (CounterDelta.is(out)) {
                CounterDelta.addTo(counts, out);
            }
        }
        return counts;
    }
}
