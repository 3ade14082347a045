package org.sage.flink.snapshot;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.python.PythonFunctionRunner;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.functions.python.DataStreamPythonFunction;
import org.apache.flink.streaming.api.functions.python.DataStreamPythonFunctionInfo;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.apache.flink.table.functions.python.PythonEnv;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.WireBatch;
import org.sage.flink.wire.WireRecord;

/** What the stage gets, and in which order; what it does with it is tested in Python. */
class SnapshotSinkOperatorTest {

    private static final TypeInformation<byte[]> BYTES =
            PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;

    private final StageLog stage = new StageLog();

    @Test
    void theRowsBeforeABarrierAreOfItsEpochAndThoseBehindItOfTheNext() throws Exception {
        try (var operator = openOperator()) {
            send(operator, "a/0", "a/1");
            checkpoint(operator, 1);
            send(operator, "b/0");
            checkpoint(operator, 2);

            long base = stage.base();
            assertEquals(
                    List.of(
                            "restore " + base + " fresh",
                            "rows a/0 a/1",
                            "end " + (base + 1),
                            "rows b/0",
                            "end " + (base + 2)),
                    stage.events);
        }
    }

    @Test
    void theStageHasEndedAllElementsOfABundleBeforeTheEndOfTheirEpoch() throws Exception {
        try (var operator = openOperator()) {
            send(operator, "a/0");
            send(operator, "a/1");
            send(operator, "a/2");
            operator.prepareSnapshotPreBarrier(1);

            assertEquals("end", stage.last().split(" ")[0]);
            assertEquals(3, stage.events.stream().filter(one -> one.startsWith("rows")).count());
            assertEquals(0, stage.unfinished);
        }
    }

    @Test
    void aDocumentCutByABarrierIsEndedByItsDeleteInTheEpochBehindIt() throws Exception {
        try (var operator = openOperator()) {
            send(operator, "a/0");
            checkpoint(operator, 1);
            operator.notifyOfCompletedCheckpoint(1);
            send(operator, "a/1", "a/end");
            checkpoint(operator, 2);
            operator.notifyOfCompletedCheckpoint(2);

            long base = stage.base();
            assertEquals(
                    List.of(
                            "rows a/0",
                            "end " + (base + 1),
                            "commit " + (base + 1),
                            "rows a/1 a/end",
                            "end " + (base + 2),
                            "commit " + (base + 2)),
                    stage.events.subList(1, stage.events.size()));
        }
    }

    @Test
    void anEpochIsCommittedWithTheWatermarkAtItsBarrierWhenItsCheckpointIsComplete()
            throws Exception {
        try (var operator = openOperator()) {
            send(operator, "a/0");
            operator.processWatermark(new Watermark(1000));
            checkpoint(operator, 1);
            operator.processWatermark(new Watermark(2000));
            assertTrue(stage.events.stream().noneMatch(one -> one.startsWith("commit")));

            operator.notifyOfCompletedCheckpoint(1);

            assertEquals("commit " + (stage.base() + 1) + " at 1000", stage.last());
        }
    }

    @Test
    void theEndOfAStreamWithoutWatermarksIsNoWatermark() throws Exception {
        try (var operator = openOperator()) {
            operator.processWatermark(Watermark.MAX_WATERMARK);
            checkpoint(operator, 1);
            operator.notifyOfCompletedCheckpoint(1);

            assertEquals("commit " + (stage.base() + 1), stage.last());
        }
    }

    @Test
    void aCommitCoversTheCheckpointWhoseMessageWasLost() throws Exception {
        try (var operator = openOperator()) {
            checkpoint(operator, 1);
            checkpoint(operator, 2);
            operator.notifyOfCompletedCheckpoint(2);
            int before = stage.events.size();

            operator.notifyOfCompletedCheckpoint(1); // late

            assertEquals("commit " + (stage.base() + 2), stage.last());
            assertEquals(before, stage.events.size());
        }
    }

    @Test
    void aRestartKeepsTheBaseAndTakesBackWhatFollowedItsCheckpoint() throws Exception {
        OperatorSubtaskState state;
        long base;
        try (var operator = openOperator()) {
            send(operator, "a/0");
            state = checkpoint(operator, 4);
            send(operator, "a/1");
            operator.prepareSnapshotPreBarrier(5); // fails: it never completes
            base = stage.base();
        }

        StageLog second = new StageLog();
        try (var restored = harness(second)) {
            restored.setRestoredCheckpointId(4);
            restored.initializeState(state);
            restored.open();
            restored.notifyOfCompletedCheckpoint(4); // of the attempt before: its state is restored
            assertEquals(List.of(), second.events);
            send(restored, "a/1");
            checkpoint(restored, 6);

            assertEquals(
                    List.of("restore " + (base + 4), "rows a/1", "end " + (base + 6)),
                    second.events);
        }
    }

    @Test
    void aJobWithoutRowsRestoresItsEpochAtItsFirstBarrier() throws Exception {
        try (var operator = openOperator()) {
            checkpoint(operator, 1);

            long base = stage.base();
            assertEquals(List.of("restore " + base + " fresh", "end " + (base + 1)), stage.events);
        }
    }

    @Test
    void aWorkerThatDiesFailsTheTask() throws Exception {
        try (var operator = openOperator()) {
            send(operator, "a/0");
            stage.isDead = true;

            Exception error =
                    assertThrows(IllegalStateException.class, () -> send(operator, "a/1"));

            assertTrue(error.getMessage().contains("restarts from its checkpoint"));
            stage.isDead = false;
        }
    }

    private OneInputStreamOperatorTestHarness<byte[], byte[]> openOperator() throws Exception {
        var harness = harness(stage);
        harness.open();
        return harness;
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> harness(StageLog stage)
            throws Exception {
        PythonEnv environment = new PythonEnv(PythonEnv.ExecType.PROCESS);
        var function = new DataStreamPythonFunction(new byte[0], environment);
        var operator =
                new SnapshotSinkOperator<byte[], byte[]>(
                        new Configuration(),
                        new DataStreamPythonFunctionInfo(function, 0),
                        BYTES,
                        BYTES) {
                    private static final long serialVersionUID = 1L;

                    @Override
                    public PythonFunctionRunner createPythonFunctionRunner() {
                        return stage;
                    }
                };
        var harness = new OneInputStreamOperatorTestHarness<byte[], byte[]>(operator);
        harness.setup(BytePrimitiveArraySerializer.INSTANCE);
        return harness;
    }

    /** One element with records of these ids. */
    private static void send(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator, String... ids)
            throws Exception {
        List<byte[]> records =
                Arrays.stream(ids)
                        .map(id -> new WireRecord(id, new byte[0], 0, null, Map.of(), "").encode())
                        .toList();
        operator.processElement(new StreamRecord<>(WireBatch.encode(records, 64)));
    }

    private static OperatorSubtaskState checkpoint(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator, long id) throws Exception {
        operator.prepareSnapshotPreBarrier(id);
        return operator.snapshot(id, id);
    }
}
