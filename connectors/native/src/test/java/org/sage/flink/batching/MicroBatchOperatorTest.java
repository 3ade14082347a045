package org.sage.flink.batching;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.AbstractStreamOperatorTestHarness;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import org.sage.flink.wire.WireBatch;
import org.sage.flink.wire.WireRecord;

class MicroBatchOperatorTest {

    private static final long MANY_BYTES = 1 << 20;

    @Test
    void aBatchIsEmittedWhenItIsFull() throws Exception {
        try (var operator = openOperator(3, MANY_BYTES, 1000)) {
            send(operator, 0, 7);

            assertEquals(List.of(ids(0, 3), ids(3, 6)), batches(operator));
        }
    }

    @Test
    void aBatchStaysWithinItsBytes() throws Exception {
        int one = record(0).length;
        try (var operator = openOperator(100, 2 * one + 1, 1000)) {
            send(operator, 0, 5);

            assertEquals(List.of(ids(0, 2), ids(2, 4)), batches(operator));
        }
    }

    @Test
    void aRecordLargerThanABatchIsABatchOfItsOwn() throws Exception {
        try (var operator = openOperator(100, 1, 1000)) {
            send(operator, 0, 2);

            assertEquals(List.of(ids(0, 1), ids(1, 2)), batches(operator));
        }
    }

    @Test
    void theOldestRecordWaitsNoLongerThanTheLinger() throws Exception {
        try (var operator = openOperator(100, MANY_BYTES, 50)) {
            operator.setProcessingTime(1000);
            send(operator, 0, 1);
            operator.setProcessingTime(1040);
            send(operator, 1, 2);
            assertEquals(List.of(), batches(operator));

            operator.setProcessingTime(1050);

            assertEquals(List.of(ids(0, 2)), batches(operator));
        }
    }

    @Test
    void theTimerOfAFullBatchDoesNotEmitTheNextOne() throws Exception {
        try (var operator = openOperator(2, MANY_BYTES, 50)) {
            operator.setProcessingTime(1000);
            send(operator, 0, 2);
            operator.setProcessingTime(1030);
            send(operator, 2, 3);

            operator.setProcessingTime(1060);

            assertEquals(List.of(ids(0, 2)), batches(operator));
            operator.setProcessingTime(1080);
            assertEquals(List.of(ids(0, 2), ids(2, 3)), batches(operator));
        }
    }

    @Test
    void theEndOfInputEmitsTheLastBatch() throws Exception {
        try (var operator = openOperator(100, MANY_BYTES, 1000)) {
            send(operator, 0, 20);

            operator.endInput();

            assertEquals(List.of(ids(0, 20)), batches(operator));
        }
    }

    @Test
    void aWatermarkWaitsForTheBatchBeforeIt() throws Exception {
        try (var operator = openOperator(3, MANY_BYTES, 1000)) {
            operator.processWatermark(new Watermark(1));
            send(operator, 0, 2);
            operator.processWatermark(new Watermark(2));
            assertEquals(List.of(new Watermark(1)), List.copyOf(operator.getOutput()));

            send(operator, 2, 3);

            Object[] output = operator.getOutput().toArray();
            assertEquals(List.of(ids(0, 3)), batches(operator));
            assertEquals(3, output.length);
            assertEquals(new Watermark(2), output[2]);
        }
    }

    @Test
    void pendingRecordsSurviveARestartAndLingerAgain() throws Exception {
        OperatorSubtaskState snapshot;
        try (var operator = openOperator(3, MANY_BYTES, 50)) {
            send(operator, 0, 5);
            snapshot = operator.snapshot(1, 1);
        }

        try (var restored = harness(3, MANY_BYTES, 50, 1, 0)) {
            restored.initializeState(snapshot);
            restored.open();
            assertEquals(List.of(), batches(restored));
            restored.setProcessingTime(50);

            assertEquals(List.of(ids(3, 5)), batches(restored));
        }
    }

    @Test
    void aBatchWhoseWaitWasOverWhileTheWriterWasBusyTakesTheRecordsThatArrivedMeanwhile()
            throws Exception {
        try (var operator = openOperator(100, MANY_BYTES, 50)) {
            send(operator, 0, 5);
            operator.setProcessingTime(1000);
            assertEquals(List.of(), batches(operator));
            send(operator, 5, 20);
            operator.setProcessingTime(1050);

            assertEquals(List.of(ids(0, 20)), batches(operator));
        }
    }

    @Test
    void recordsInTheStateOfAnOlderJobAreUpgraded() throws Exception {
        byte[] before = HexFormat.of().parseHex("96a172c000c080a16f");
        OperatorSubtaskState snapshot;
        try (var operator = openOperator(3, MANY_BYTES, 50)) {
            operator.processElement(new StreamRecord<>(before));
            snapshot = operator.snapshot(1, 1);
        }

        try (var restored = harness(3, MANY_BYTES, 50, 1, 0)) {
            restored.initializeState(snapshot);
            restored.open();
            restored.endInput();

            byte[] batch = restored.extractOutputValues().get(0);
            assertArrayEquals(
                    HexFormat.of().parseHex("91" + "99a172c000c080a16fa6757073657274a0a0"), batch);
        }
    }

    @Test
    void pendingRecordsOfTwoSubtasksAreRestoredInOne() throws Exception {
        List<OperatorSubtaskState> snapshots = new ArrayList<>();
        for (int subtask = 0; subtask < 2; subtask++) {
            try (var operator = harness(3, MANY_BYTES, 50, 2, subtask)) {
                operator.open();
                send(operator, 2 * subtask, 2 * subtask + 2);
                snapshots.add(operator.snapshot(1, 1));
            }
        }
        OperatorSubtaskState all =
                AbstractStreamOperatorTestHarness.repackageState(
                        snapshots.toArray(OperatorSubtaskState[]::new));

        try (var restored = harness(3, MANY_BYTES, 50, 1, 0)) {
            restored.initializeState(
                    AbstractStreamOperatorTestHarness.repartitionOperatorState(all, 2, 2, 1, 0));
            restored.open();
            restored.endInput();

            assertEquals(
                    ids(0, 4),
                    batches(restored).stream().flatMap(List::stream).sorted().toList());
        }
    }

    @Test
    void aBatchOfAnySizeHasItsHeader() throws IOException {
        for (int size : List.of(1, 15, 16, 65_535, 65_536)) {
            List<byte[]> records = IntStream.range(0, size).mapToObj(i -> new byte[] {1}).toList();

            byte[] batch = WireBatch.encode(records, size);

            try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(batch)) {
                assertEquals(size, unpacker.unpackArrayHeader());
            }
        }
    }

    @Test
    void aLimitBelowOneIsRejectedAtBuildTime() {
        Exception error =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> MicroBatchOperator.wire(null, "rows", 0, 1, 1));

        assertEquals("step 'rows': items_max must be at least 1, got 0", error.getMessage());
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> openOperator(
            int itemsMax, long bytesMax, long lingerMs) throws Exception {
        var harness = harness(itemsMax, bytesMax, lingerMs, 1, 0);
        harness.open();
        return harness;
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> harness(
            int itemsMax, long bytesMax, long lingerMs, int parallelism, int subtask)
            throws Exception {
        var harness =
                new OneInputStreamOperatorTestHarness<byte[], byte[]>(
                        new MicroBatchOperator(itemsMax, bytesMax, lingerMs), 4, parallelism, subtask);
        harness.setup(BytePrimitiveArraySerializer.INSTANCE);
        return harness;
    }

    private static byte[] record(int id) {
        return new WireRecord("r" + id, "v".getBytes(), 0, null, Map.of(), "").encode();
    }

    private static void send(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator, int from, int to)
            throws Exception {
        for (int id = from; id < to; id++) {
            operator.processElement(new StreamRecord<>(record(id)));
        }
    }

    private static List<String> ids(int from, int to) {
        return IntStream.range(from, to).mapToObj(id -> "r" + id).sorted().toList();
    }

    private static List<List<String>> batches(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator) throws IOException {
        List<List<String>> batches = new ArrayList<>();
        for (byte[] batch : operator.extractOutputValues()) {
            List<String> ids = new ArrayList<>();
            try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(batch)) {
                int size = unpacker.unpackArrayHeader();
                for (int i = 0; i < size; i++) {
                    ids.add(unpacker.unpackValue().asArrayValue().get(0).toString());
                }
            }
            batches.add(ids.stream().map(id -> id.replace("\"", "")).sorted().toList());
        }
        return batches;
    }
}
