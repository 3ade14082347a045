package org.sage.flink.keyed;

import java.util.List;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;

/** Operator that makes a field of the value the record's key. A record without one is a dead letter. */
public final class KeyByOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final String field;
    private final FailedRecords failed;

    private transient RecordFields fields;

    KeyByOperator(String field, FailedRecords failed) {
        this.field = field;
        this.failed = failed;
    }

    /** Appends this operator to the stream, with the step's name as its uid. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String step, String field, String job, String run) {
        return in.transform(
                        step,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new KeyByOperator(field, new FailedRecords(step, job, run)))
                .uid(step);
    }

    @Override
    public void open() throws Exception {
        super.open();
        fields = new RecordFields(List.of(field));
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        RecordFields.Found found = fields.read(record);
        byte[] key;
        try {
            key = Keys.of(found.fields()[0], field);
        } catch (IllegalArgumentException e) {
            failed.refuse(output, record, e.getMessage());
            return;
        }
        output.collect(element.replace(RecordChange.withKey(record, found, key)));
    }
}
