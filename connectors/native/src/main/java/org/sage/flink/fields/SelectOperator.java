package org.sage.flink.fields;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedReader;
import org.sage.flink.wire.PackedWriter;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordMapOperator;
import org.sage.flink.wire.RequiredField;

/**
 * Operator that keeps the named fields of each value; a delete passes. The Python twin is {@code
 * Select} in {@code sage_flink/operators/fields.py}.
 */
public final class SelectOperator extends RecordMapOperator {

    private static final long serialVersionUID = 1L;

    private final List<String> names;
    private final List<String> shown;

    private SelectOperator(FailedRecords failed, List<String> names, List<String> shown) {
        super(failed, List.of());
        this.names = names;
        this.shown = shown;
    }

    /**
     * Appends this operator to the stream, as {@code step}.
     *
     * @param shown the names as messages show them
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in,
            String step,
            String job,
            String run,
            List<String> names,
            List<String> shown) {
        FailedRecords failed = new FailedRecords(step, job, run);
        return new SelectOperator(failed, new ArrayList<>(names), new ArrayList<>(shown))
                .wire(in, step);
    }

    @Override
    protected byte[] map(byte[] record, RecordFields.Found found) {
        if (found.isDelete()) {
            return record;
        }
        PackedWriter value = new PackedWriter(found.valueTo() - found.valueFrom());
        value.mapHeader(names.size());
        for (int i = 0; i < names.size(); i++) {
            PackedReader field = RequiredField.find(record, found, names.get(i), shown.get(i));
            int from = field.position();
            field.skip();
            value.string(names.get(i)).raw(record, from, field.position());
        }
        return RecordChange.withValue(record, found, value.toByteArray());
    }
}
