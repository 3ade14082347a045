package org.sage.flink.fields;

import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.msgpack.value.ValueType;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedReader;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordMapOperator;
import org.sage.flink.wire.RequiredField;

/**
 * Operator that keeps the records whose field is a given text; a delete passes. The Python twin is
 * {@code Where} in {@code sage_flink/operators/fields.py}.
 */
public final class WhereOperator extends RecordMapOperator {

    private static final long serialVersionUID = 1L;

    private final String name;
    private final String text;

    private WhereOperator(FailedRecords failed, String name, String text) {
        super(failed, List.of());
        this.name = name;
        this.text = text;
    }

    /** Appends this operator to the stream, as {@code step}. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String step, String job, String run, String name, String text) {
        return new WhereOperator(new FailedRecords(step, job, run), name, text).wire(in, step);
    }

    @Override
    protected byte[] map(byte[] record, RecordFields.Found found) {
        if (found.isDelete()) {
            return record;
        }
        PackedReader field = RequiredField.findOrNull(record, found, name);
        boolean isText = field != null && field.type() == ValueType.STRING;
        return isText && field.string().equals(text) ? record : null;
    }
}
