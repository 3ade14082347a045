package org.sage.flink.keyed;

import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordMapOperator;

/** Operator that makes a field of the value the record's key. A record without one is a dead letter. */
public final class KeyByOperator extends RecordMapOperator {

    private static final long serialVersionUID = 1L;

    private final String field;

    private KeyByOperator(String field, FailedRecords failed) {
        super(failed, List.of(field));
        this.field = field;
    }

    /** Appends this operator to the stream, with the step's name as its uid. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String step, String field, String job, String run) {
        return new KeyByOperator(field, new FailedRecords(step, job, run)).wire(in, step);
    }

    @Override
    protected byte[] map(byte[] record, RecordFields.Found found) {
        return RecordChange.withKey(record, found, Keys.of(found.fields()[0], field));
    }
}
