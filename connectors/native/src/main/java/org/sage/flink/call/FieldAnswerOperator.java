package org.sage.flink.call;

import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.CallResult;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedWriter;
import org.sage.flink.wire.RecordChange;

/**
 * Operator that turns the results of a call that embeds into records: the record that was asked for,
 * with the vector in one field of its value. A failed call is a dead letter with its attempts. The
 * Python twin is {@code Embed.answer} in {@code sage_flink/inference/embed.py}.
 */
public final class FieldAnswerOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private static final int FLOAT_BYTES = 4;
    private static final int HEADER = 8;

    private final FailedRecords failed;
    private final String field;
    private final int dim;

    private FieldAnswerOperator(FailedRecords failed, String field, int dim) {
        this.failed = failed;
        this.field = field;
        this.dim = dim;
    }

    /**
     * Appends this operator to the results of the call {@code step}.
     *
     * @param field of the value, for the vector
     * @param dim the numbers of a vector; 0: any
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> results, String step, String job, String run, String field, int dim) {
        String name = step + ".answer";
        FailedRecords failed = new FailedRecords(step, job, run);
        return results.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new FieldAnswerOperator(failed, field, dim))
                .uid(name);
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        CallResult.Carried result = CallResult.decode(element.getValue());
        if (result.result().isOk() && result.result().status() == 0) {
            output.collect(element.replace(result.carrier())); // no call was made
            return;
        }
        String flaw = flaw(result.result());
        if (flaw.isEmpty()) {
            PackedWriter vector = new PackedWriter(result.result().body().length + HEADER);
            byte[] packed = vector.bytes(result.result().body()).toByteArray();
            output.collect(element.replace(RecordChange.withField(result.carrier(), field, packed)));
        } else {
            failed.refuseCall(output, result.carrier(), flaw, result.result().attempts());
        }
    }

    private String flaw(CallResult result) {
        int bytes = result.body().length;
        if (!result.isOk()) {
            return result.reason();
        }
        if (bytes == 0 || bytes % FLOAT_BYTES != 0) {
            return "the vector has " + bytes + " bytes, not a multiple of four";
        }
        boolean fits = dim == 0 || bytes == dim * FLOAT_BYTES;
        return fits ? "" : "the vector has dimension " + bytes / FLOAT_BYTES + ", not " + dim;
    }
}
