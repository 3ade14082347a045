package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;

class EndOfInputBufferOperatorTest {

    @Test
    void nothingLeavesBeforeTheEndAndThenAllInOrder() throws Exception {
        try (var operator = opened(null)) {
            send(operator, 1, 2, 3);
            assertEquals(List.of(), sent(operator));

            operator.endInput();

            assertEquals(List.of(1, 2, 3), sent(operator));
        }
    }

    @Test
    void whatIsHeldSurvivesARestartAndIsSentOnce() throws Exception {
        OperatorSubtaskState before;
        OperatorSubtaskState after;
        try (var operator = opened(null)) {
            send(operator, 1, 2);
            before = operator.snapshot(1, 1);
            operator.endInput();
            after = operator.snapshot(2, 2);
        }

        try (var operator = opened(before)) {
            send(operator, 3);
            operator.endInput();
            assertEquals(List.of(1, 2, 3), sent(operator));
        }
        try (var operator = opened(after)) {
            operator.endInput();
            assertEquals(List.of(), sent(operator));
        }
    }

    @Test
    void eachStreamNeedsItsTopic() {
        assertThrows(
                IllegalArgumentException.class, () -> EndOfInputBufferOperator.wire(List.of(), List.of(), "held"));
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> opened(
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

    private static List<Integer> sent(OneInputStreamOperatorTestHarness<byte[], byte[]> operator) {
        List<Integer> found = new ArrayList<>();
        operator.extractOutputValues().forEach(value -> found.add((int) value[0]));
        return found;
    }
}
