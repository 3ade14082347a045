package org.sage.flink.counters;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.CounterDelta;

class JobCountersOperatorTest {

    private static final List<String> COUNTERS = List.of("in.read", "a.b.emitted");
    private static final String STEPS = "the steps";

    @Test
    void theAccumulatorHasTheCountsOfTheLastBarrier() throws Exception {
        try (var operator = openOperator(COUNTERS, STEPS, null)) {
            assertEquals(0, count(operator, "counts", "in.read"));
            send(operator, Map.of("in.read", 5L));
            send(operator, Map.of("in.read", 2L, "a.b.emitted", 1L));
            assertEquals(0, count(operator, "counts", "in.read"));

            operator.snapshot(1, 1);
            send(operator, Map.of("in.read", 100L));

            assertEquals(7, count(operator, "counts", "in.read"));
            assertEquals(1, count(operator, "counts", "a.b.emitted"));
        }
    }

    @Test
    void theEndOfTheInputPublishesTheFinalCounts() throws Exception {
        try (var operator = openOperator(COUNTERS, STEPS, null)) {
            send(operator, Map.of("in.read", 5L));

            operator.endInput();

            assertEquals(5, count(operator, "counts", "in.read"));
        }
    }

    @Test
    void aRestartContinuesFromTheCountsInTheCheckpoint() throws Exception {
        OperatorSubtaskState snapshot = after(COUNTERS, STEPS, Map.of("in.read", 5L));

        try (var restored = openOperator(COUNTERS, STEPS, snapshot)) {
            assertEquals(5, count(restored, "counts", "in.read"));
            assertEquals(0, count(restored, "opening", "in.read"));
            send(restored, Map.of("in.read", 2L));
            restored.snapshot(2, 2);

            assertEquals(7, count(restored, "counts", "in.read"));
        }
    }

    @Test
    void aChangeOfStepsKeepsTheRestoredCountsAsOpening() throws Exception {
        OperatorSubtaskState snapshot = after(COUNTERS, STEPS, Map.of("in.read", 5L));
        List<String> grown = List.of("in.read", "new.read");

        OperatorSubtaskState second;
        try (var restored = openOperator(grown, "one step more", snapshot)) {
            assertEquals(5, count(restored, "counts", "in.read"));
            assertEquals(5, count(restored, "opening", "in.read"));
            assertEquals(0, count(restored, "counts", "new.read"));
            send(restored, Map.of("in.read", 1L, "new.read", 1L));
            second = restored.snapshot(2, 2);
        }

        try (var again = openOperator(grown, "one step more", second)) {
            assertEquals(6, count(again, "counts", "in.read"));
            assertEquals(5, count(again, "opening", "in.read"));
            assertEquals(1, count(again, "counts", "new.read"));
        }
    }

    @Test
    void theEndWaitsForTheSlowestReporterUpToALimit() {
        assertEquals(0, JobCountersOperator.lingerMs(Map.of("metrics.reporters", "influx")));
        assertEquals(1500, JobCountersOperator.lingerMs(Map.of("metrics.reporter.influx.interval", "1 s")));
        assertEquals(5000, JobCountersOperator.lingerMs(Map.of("metrics.reporter.influx.interval", "1 min")));
    }

    private static OperatorSubtaskState after(
            List<String> counters, String steps, Map<String, Long> delta) throws Exception {
        try (var operator = openOperator(counters, steps, null)) {
            send(operator, delta);
            return operator.snapshot(1, 1);
        }
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> openOperator(
            List<String> counters, String steps, OperatorSubtaskState snapshot) throws Exception {
        var harness =
                new OneInputStreamOperatorTestHarness<byte[], byte[]>(
                        new JobCountersOperator(counters, steps), 1, 1, 0);
        harness.setup(BytePrimitiveArraySerializer.INSTANCE);
        if (snapshot != null) {
            harness.initializeState(snapshot);
        }
        harness.open();
        return harness;
    }

    private static void send(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator, Map<String, Long> delta)
            throws Exception {
        operator.processElement(new StreamRecord<>(CounterDelta.encode(delta)));
    }

    private static long count(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator, String which, String counter)
            throws Exception {
        Object value =
                operator.getEnvironment()
                        .getAccumulatorRegistry()
                        .getUserMap()
                        .get(JobCountersOperator.ACCUMULATOR)
                        .getLocalValue();
        JsonNode snapshot = new ObjectMapper().readTree((String) value);
        return snapshot.get(which).get(counter).asLong();
    }
}
