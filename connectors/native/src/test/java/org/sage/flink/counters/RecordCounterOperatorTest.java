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
    void recordsAreForwardedUnchangedAndInOrder() throws Exception {
        try (var operator = openOperator("in.read")) {
            byte[] other = {(byte) 0x93, 1, 2, 3};

            operator.processElement(new StreamRecord<>(RECORD, 7));
            operator.processElement(new StreamRecord<>(other));

            assertArrayEquals(RECORD, operator.extractOutputValues().get(0));
            assertArrayEquals(other, operator.extractOutputValues().get(1));
            assertEquals(7, operator.extractOutputStreamRecords().get(0).getTimestamp());
        }
    }

    @Test
    void eachRecordIsCountedOnceInEveryCounterBeforeTheBarrier() throws Exception {
        try (var operator = openOperator("in.read", "in.emitted")) {
            send(operator, 3);
            assertNull(operator.getSideOutput(RecordCounterOperator.DELTAS));

            operator.prepareSnapshotPreBarrier(1);

            assertEquals(Map.of("in.read", 3L, "in.emitted", 3L), deltas(operator));
        }
    }

    @Test
    void noCountIsSentTwiceOrLeftPendingAfterTheBarrier() throws Exception {
        try (var operator = openOperator("in.read")) {
            send(operator, 3);
            operator.prepareSnapshotPreBarrier(1);
            operator.snapshot(1, 1);
            operator.prepareSnapshotPreBarrier(2);
            send(operator, 2);
            operator.endInput();

            assertEquals(2, operator.getSideOutput(RecordCounterOperator.DELTAS).size());
            assertEquals(Map.of("in.read", 5L), deltas(operator));
        }
    }

    @Test
    void aDeltaIsAddedAndNotForwarded() throws Exception {
        try (var operator = openOperator("split.read", "split.emitted")) {
            send(operator, 9);
            operator.processElement(new StreamRecord<>(CounterDelta.encode(Map.of("split.read", -8L))));

            operator.prepareSnapshotPreBarrier(1);

            assertEquals(9, operator.extractOutputValues().size());
            assertEquals(Map.of("split.read", 1L, "split.emitted", 9L), deltas(operator));
        }
    }

    @Test
    void countsAreSentOnceASecondWithoutABarrier() throws Exception {
        try (var operator = openOperator("in.read")) {
            operator.setProcessingTime(10_000);
            send(operator, 4);
            operator.setProcessingTime(10_999);
            assertNull(operator.getSideOutput(RecordCounterOperator.DELTAS));

            operator.setProcessingTime(11_000);

            assertEquals(Map.of("in.read", 4L), deltas(operator));
        }
    }

    @Test
    void aRecordCounterHasNoState() throws Exception {
        try (var operator = openOperator("in.read")) {
            send(operator, 4);
            operator.prepareSnapshotPreBarrier(1);

            OperatorSubtaskState snapshot = operator.snapshot(1, 1);

            assertFalse(snapshot.hasState());
        }
    }

    @Test
    void aDeltaOfAnySizeIsDistinguishedFromOtherWireForms() {
        for (int size : List.of(0, 15, 16, 70_000)) {
            Map<String, Long> delta = new LinkedHashMap<>();
            IntStream.range(0, size).forEach(n -> delta.put("c" + n, (long) -n));
            byte[] receipt = CounterDelta.encode(delta);
            Map<String, Long> back = new HashMap<>();

            CounterDelta.addTo(back, receipt);

            assertTrue(CounterDelta.is(receipt));
            assertEquals(delta, back);
        }
        assertFalse(CounterDelta.is(RECORD));
        assertFalse(CounterDelta.is(WireBatch.encode(List.of(RECORD), RECORD.length)));
        assertFalse(CounterDelta.is(new byte[0]));
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> openOperator(String... counters)
            throws Exception {
        var harness =
                new OneInputStreamOperatorTestHarness<byte[], byte[]>(
                        new RecordCounterOperator(List.of(counters)), 4, 1, 0);
        harness.setup(BytePrimitiveArraySerializer.INSTANCE);
        harness.open();
        return harness;
    }

    private static void send(OneInputStreamOperatorTestHarness<byte[], byte[]> operator, int records)
            throws Exception {
        for (int n = 0; n < records; n++) {
            operator.processElement(new StreamRecord<>(RECORD));
        }
    }

    private static Map<String, Long> deltas(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator) {
        Map<String, Long> sum = new HashMap<>();
        operator.getSideOutput(RecordCounterOperator.DELTAS)
                .forEach(receipt -> CounterDelta.addTo(sum, receipt.getValue()));
        return sum;
    }
}
