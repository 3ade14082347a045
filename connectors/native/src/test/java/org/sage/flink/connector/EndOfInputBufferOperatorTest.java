package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.WireRecord;

class EndOfInputBufferOperatorTest {

    @Test
    void allRecordsAreEmittedInOrderAtTheEndOfInput() throws Exception {
        try (var operator = openOperator(null)) {
            send(operator, 1, 2, 3);
            assertEquals(List.of(), output(operator));

            operator.endInput();

            assertEquals(List.of(1, 2, 3), output(operator));
        }
    }

    @Test
    void bufferedRecordsSurviveARestartAndAreEmittedOnce() throws Exception {
        OperatorSubtaskState before;
        OperatorSubtaskState after;
        try (var operator = openOperator(null)) {
            send(operator, 1, 2);
            before = operator.snapshot(1, 1);
            operator.endInput();
            after = operator.snapshot(2, 2);
        }

        try (var operator = openOperator(before)) {
            send(operator, 3);
            operator.endInput();
            assertEquals(List.of(1, 2, 3), output(operator));
        }
        try (var operator = openOperator(after)) {
            operator.endInput();
            assertEquals(List.of(), output(operator));
        }
    }

    @Test
    void recordsInTheStateOfAnOlderJobAreUpgraded() throws Exception {
        OperatorSubtaskState snapshot;
        try (var operator = openOperator(null)) {
            byte[] withoutKind = HexFormat.of().parseHex("96a172c000c080a16f");
            operator.processElement(new StreamRecord<>(withoutKind));
            snapshot = operator.snapshot(1, 1);
        }

        try (var operator = openOperator(snapshot)) {
            operator.endInput();

            byte[] upgraded = operator.extractOutputValues().get(0);
            assertEquals("r", WireRecord.decode(upgraded).id());
        }
    }

    @Test
    void eachStreamNeedsItsTopic() {
        assertThrows(
                IllegalArgumentException.class,
                () -> EndOfInputBufferOperator.wire(List.of(), List.of(), "held"));
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> openOperator(
            OperatorSubtaskState state) throws Exception {
        var operator =
                new OneInputStreamOperatorTestHarness<>(
                        new EndOfInputBufferOperator(), BytePrimitiveArraySerializer.INSTANCE);
        operator.setup(BytePrimitiveArraySerializer.INSTANCE);
        if (state != null) {
            operator.initializeState(state);
        }
        operator.open();
        return operator;
    }

    private static void send(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator, int... values)
            throws Exception {
        for (int value : values) {
            operator.processElement(new StreamRecord<>(new byte[] {(byte) value}));
        }
    }

    private static List<Integer> output(OneInputStreamOperatorTestHarness<byte[], byte[]> operator) {
        List<Integer> found = new ArrayList<>();
        operator.extractOutputValues().forEach(value -> found.add((int) value[0]));
        return found;
    }
}
