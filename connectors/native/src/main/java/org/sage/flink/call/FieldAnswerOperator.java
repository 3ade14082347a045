package org.sage.flink.call;

import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedWriter;
import org.sage.flink.wire.RecordChange;

/**
 * Operator that turns the results of a call that embeds into records: the record that was asked for,
 * with the vector in one field of its value. The Python twin is {@code Embed.answer} in {@code
 * sage_flink/inference/embed.py}.
 */
public final class FieldAnswerOperator extends AnswerOperator {

    private static final long serialVersionUID = 1L;

    private static final int FLOAT_BYTES = 4;
    private static final int HEADER = 8;

    private final String field;
    private final int dim;

    private FieldAnswerOperator(FailedRecords failed, String field, int dim) {
        super(failed);
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
        FailedRecords failed = new FailedRecords(step, job, run);
        return new FieldAnswerOperator(failed, field, dim).wire(results);
    }

    @Override
    protected byte[] answer(byte[] record, byte[] body) {
        if (body.length == 0 || body.length % FLOAT_BYTES != 0) {
            throw new IllegalArgumentException(
                    "the vector has " + body.length + " bytes, not a multiple of four");
        }
        if (dim != 0 && body.length != dim * FLOAT_BYTES) {
            throw new IllegalArgumentException(
                    "the vector has dimension " + body.length / FLOAT_BYTES + ", not " + dim);
        }
        byte[] packed = new PackedWriter(body.length + HEADER).bytes(body).toByteArray();
        return RecordChange.withField(record, field, packed);
    }
}
