package org.sage.flink.broadcast;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.core.execution.SavepointFormatType;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.checkpoint.SavepointType;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.tasks.mailbox.Mail;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.streaming.util.TwoInputStreamOperatorTestHarness;
import org.apache.flink.util.function.ThrowingRunnable;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.value.ValueFactory;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.WireRecord;

/** The rows are read as {@code version:key=number,...}. */
class BroadcastJoinOperatorTest {

    private static final byte[] KEY = {'a'};

    private static TwoInputStreamOperatorTestHarness<byte[], byte[], byte[]> harness()
            throws Exception {
        BroadcastConfig settings =
                new BroadcastConfig(
                        new FailedRecords("step", "job", "run"), "rows", "", new TreeMap<>());
        return new TwoInputStreamOperatorTestHarness<>(new BroadcastJoinOperator(settings));
    }

    private static StreamRecord<byte[]> record(String kind, int number) throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(9).packString("id");
            packer.packValue(
                    ValueFactory.newMap(
                            ValueFactory.newString("n"), ValueFactory.newInteger(number)));
            packer.packLong(1).packBinaryHeader(1).writePayload(KEY);
            packer.packMapHeader(0).packString("").packString(kind);
            packer.packString("").packString("");
            return new StreamRecord<>(packer.toByteArray(), 1);
        }
    }

    private static void change(
            TwoInputStreamOperatorTestHarness<byte[], byte[], byte[]> harness, int number)
            throws Exception {
        harness.processElement2(record("upsert", number));
    }

    /** The version and the number in the row of the next record; -1 without the row. */
    private static String next(TwoInputStreamOperatorTestHarness<byte[], byte[], byte[]> harness)
            throws Exception {
        harness.processElement1(record("upsert", 0));
        byte[] made = (byte[]) ((StreamRecord<?>) harness.getOutput().poll()).getValue();
        RecordFields fields = new RecordFields(List.of("rows.version", "rows.rows.a.n"));
        byte[][] found = fields.read(made).fields();
        return found[0][0] + ":" + (found[1] == null ? "" : found[1][0]);
    }

    /** Runs {@code mail} when the operator waits. */
    private static void whileItWaits(
            TwoInputStreamOperatorTestHarness<byte[], byte[], byte[]> harness,
            ThrowingRunnable<Exception> mail) {
        harness.getTaskMailbox().put(new Mail(mail, Integer.MAX_VALUE, "a notification"));
    }

    private static void abort(
            TwoInputStreamOperatorTestHarness<byte[], byte[], byte[]> harness, long checkpointId)
            throws Exception {
        harness.getOperator().notifyCheckpointAborted(checkpointId);
    }

    @Test
    void aChangeTakesEffectBehindTheBarrierOfACompleteCheckpoint() throws Exception {
        try (var harness = harness()) {
            harness.open();
            change(harness, 1);
            assertEquals("0:", next(harness));
            harness.snapshot(5, 1);
            change(harness, 2);

            whileItWaits(harness, () -> harness.notifyOfCompletedCheckpoint(5));
            assertEquals("5:1", next(harness));
            harness.snapshot(6, 1);
            harness.notifyOfCompletedCheckpoint(6);
            assertEquals("6:2", next(harness));
            harness.snapshot(7, 1);
            assertEquals("6:2", next(harness));
        }
    }

    @Test
    void allSubtasksSwitchAtTheSameBarrierWhereverTheirInputsAre() throws Exception {
        try (var first = harness();
                var second = harness()) {
            first.open();
            second.open();
            List<String> versions = new ArrayList<>();
            change(first, 1);
            versions.add(next(first));
            versions.add(next(second));
            change(second, 1);
            versions.add(next(second));
            first.snapshot(3, 1);
            second.snapshot(3, 1);
            first.notifyOfCompletedCheckpoint(3);
            change(first, 2);
            versions.add(next(first));
            whileItWaits(second, () -> second.notifyOfCompletedCheckpoint(3));
            versions.add(next(second));

            assertEquals(List.of("0:", "0:", "0:", "3:1", "3:1"), versions);
        }
    }

    @Test
    void whereACheckpointFailsItsChangesAreThoseOfTheNextOne() throws Exception {
        try (var harness = harness()) {
            harness.open();
            change(harness, 1);
            harness.snapshot(5, 1);
            change(harness, 2);
            whileItWaits(harness, () -> abort(harness, 5));
            assertEquals("0:", next(harness));

            harness.snapshot(6, 1);
            change(harness, 3);
            harness.snapshot(7, 1);
            abort(harness, 6);
            whileItWaits(harness, () -> harness.notifyOfCompletedCheckpoint(7));
            assertEquals("7:3", next(harness));
        }
    }

    @Test
    void aSavepointChangesNothingInTheRunningJob() throws Exception {
        OperatorSubtaskState savepoint;
        try (var harness = harness()) {
            harness.open();
            change(harness, 1);
            savepoint =
                    harness.snapshotWithLocalState(
                                    5, 1, SavepointType.savepoint(SavepointFormatType.CANONICAL))
                            .getJobManagerOwnedState();
            assertEquals("0:", next(harness));
        }
        try (var harness = harness()) {
            harness.initializeState(savepoint);
            harness.open();
            assertEquals("5:1", next(harness));
        }
    }

    @Test
    void aRestartHasTheVersionOfItsCheckpointAndTheDeletesToo() throws Exception {
        OperatorSubtaskState state;
        try (var harness = harness()) {
            harness.open();
            change(harness, 1);
            state = harness.snapshot(5, 1);
        }
        for (String version : List.of("5:1", "6:")) {
            try (var harness = harness()) {
                harness.initializeState(state);
                harness.open();
                assertEquals(version, next(harness));
                harness.processElement2(record("delete", 0));
                state = harness.snapshot(6, 1);
            }
        }
    }

    @Test
    void eventTimeIsThatOfTheRecords() throws Exception {
        try (var harness = harness()) {
            harness.open();
            harness.processWatermark2(new Watermark(9));
            harness.processWatermark1(new Watermark(5));
            harness.processWatermarkStatus2(WatermarkStatus.IDLE);
            harness.processWatermarkStatus1(WatermarkStatus.IDLE);
            harness.processWatermark2(Watermark.MAX_WATERMARK);

            assertEquals(
                    List.of(new Watermark(5), WatermarkStatus.IDLE),
                    new ArrayList<>(harness.getOutput()));
        }
    }

    @Test
    void aDeleteIsForwardedAndAValueThatIsNoMapIsRefused() throws Exception {
        try (var harness = harness()) {
            harness.open();
            StreamRecord<byte[]> delete = record("delete", 0);
            harness.processElement1(delete);
            StreamRecord<?> made = (StreamRecord<?>) harness.getOutput().poll();
            assertArrayEquals(delete.getValue(), (byte[]) made.getValue());

            byte[] text =
                    new WireRecord("id", KEY, 1, KEY, Map.of(), "").encode();
            harness.processElement1(new StreamRecord<>(text));
            assertEquals(1, harness.getSideOutput(FailedRecords.TAG).size());
        }
    }
}
