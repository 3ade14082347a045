package org.sage.flink.call;

import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.CallResult;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordLimit;

/**
 * Operator that turns the results of a call into records. A record for which no call was made passes
 * unchanged; a failed call, and an answer that is refused, is a dead letter with its attempts.
 */
abstract class AnswerOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final FailedRecords failed;

    protected AnswerOperator(FailedRecords failed) {
        this.failed = failed;
    }

    /** Appends this operator to the results of the step's call. */
    protected final SingleOutputStreamOperator<byte[]> wire(DataStream<byte[]> results) {
        String name = failed.step() + ".answer";
        return results.transform(
                        name, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO, this)
                .uid(name);
    }

    /**
     * The record with the answer in {@code body}.
     *
     * @throws IllegalArgumentException the answer is refused; the message is the reason
     */
    protected abstract byte[] answer(byte[] record, byte[] body);

    @Override
    public final void processElement(StreamRecord<byte[]> element) {
        CallResult.Carried carried = CallResult.decode(element.getValue());
        CallResult result = carried.result();
        if (result.isOk() && result.status() == 0) {
            output.collect(element.replace(carried.carrier())); // no call was made
            return;
        }
        byte[] made = null;
        String flaw = result.reason();
        if (result.isOk()) {
            try {
                made = answer(carried.carrier(), result.body());
                RecordLimit.check(made.length);
            } catch (IllegalArgumentException e) {
                flaw = e.getMessage();
            }
        }
        if (flaw.isEmpty()) {
            output.collect(element.replace(made));
        } else {
            failed.refuseCall(output, carried.carrier(), flaw, result.attempts());
        }
    }
}
