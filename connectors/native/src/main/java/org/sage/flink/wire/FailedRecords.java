package org.sage.flink.wire;

import java.io.Serializable;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.OutputTag;

/**
 * Where a native operator sends the records that it refuses: dead letters to the side output {@code
 * failed}, and a {@link CounterDelta} of the step to the main output, for the record counter behind
 * the operator.
 */
public record FailedRecords(String step, String job, String run) implements Serializable {

    /** Named as the side output of a Python stage. */
    public static final OutputTag<byte[]> TAG =
            new OutputTag<>("failed", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    /** Sends the dead letter of {@code record}, and its counts. */
    public void refuse(Output<StreamRecord<byte[]>> output, byte[] record, String reason) {
        refuse(output, record, reason, "read");
    }

    /** The same for one of several inputs, whose records {@code readCounter} counts. */
    public void refuse(
            Output<StreamRecord<byte[]>> output, byte[] record, String reason, String readCounter) {
        refuse(output, record, reason, 1, List.of(readCounter, "dead_lettered"));
    }

    /** The same for the record of a call that failed after this many attempts. */
    public void refuseCall(
            Output<StreamRecord<byte[]>> output, byte[] record, String reason, int attempts) {
        refuse(output, record, reason, attempts, List.of("answered", "dead_lettered"));
    }

    /** The same for a record that the operator itself made. */
    public void refuseMade(Output<StreamRecord<byte[]>> output, byte[] record, String reason) {
        refuse(output, record, reason, 1, List.of("dead_lettered"));
    }

    /** Counts a record that ends in the step, without a dead letter. */
    public void end(Output<StreamRecord<byte[]>> output) {
        output.collect(new StreamRecord<>(CounterDelta.encode(Map.of(step + ".read", 1L))));
    }

    private void refuse(
            Output<StreamRecord<byte[]>> output,
            byte[] record,
            String reason,
            int attempts,
            List<String> counters) {
        byte[] letter = DeadLetterMessage.of(record, step, reason, attempts, job, run);
        output.collect(TAG, new StreamRecord<>(letter));
        Map<String, Long> delta = new LinkedHashMap<>();
        counters.forEach(counter -> delta.put(step + "." + counter, 1L));
        output.collect(new StreamRecord<>(CounterDelta.encode(delta)));
    }

    /** The message of the dead letter. */
    public byte[] letter(byte[] record, String reason) {
        return DeadLetterMessage.of(record, step, reason, 1, job, run);
    }
}
