package org.sage.flink.broadcast;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.wire.CounterDelta;
import org.sage.flink.wire.FailedRecords;

class BroadcastInputOperatorTest {

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> harness() throws Exception {
        return new OneInputStreamOperatorTestHarness<>(
                new BroadcastInputOperator(new FailedRecords("step", "job", "run")));
    }

    private static byte[] row(String key, int bytes) throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(9).packString("id");
            if (bytes < 0) {
                packer.packNil();
            } else {
                packer.packMapHeader(1).packString("n").packBinaryHeader(bytes);
                packer.writePayload(new byte[bytes]);
            }
            packer.packLong(1).packBinaryHeader(key.length()).writePayload(key.getBytes());
            packer.packMapHeader(0).packString("").packString(bytes < 0 ? "delete" : "upsert");
            packer.packString("").packString("");
            return packer.toByteArray();
        }
    }

    /** How many of the outputs so far are changes, the others being counts of dead letters. */
    private static long changes(OneInputStreamOperatorTestHarness<byte[], byte[]> harness) {
        long count =
                harness.extractOutputValues().stream().filter(one -> !CounterDelta.is(one)).count();
        harness.getOutput().clear();
        return count;
    }

    @Test
    void allRowsTogetherHaveALimitWhichARestartRemembers() throws Exception {
        OperatorSubtaskState state;
        try (var harness = harness()) {
            harness.open();
            harness.processElement(new StreamRecord<>(row("a", 6_000_000)));
            harness.processElement(new StreamRecord<>(row("b", 6_000_000)));
            harness.processElement(new StreamRecord<>(row("a", 6_500_000)));
            assertEquals(2, changes(harness));
            assertEquals(1, harness.getSideOutput(FailedRecords.TAG).size());
            state = harness.snapshot(1, 1);
        }
        try (var harness = harness()) {
            harness.initializeState(state);
            harness.open();
            harness.processElement(new StreamRecord<>(row("b", 6_000_000)));
            assertEquals(0, changes(harness));
            harness.processElement(new StreamRecord<>(row("a", -1)));
            harness.processElement(new StreamRecord<>(row("b", 6_000_000)));
            assertEquals(2, changes(harness));
        }
    }
}
