package org.sage.flink.wire;

import java.util.List;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Operator that makes one wire record of each, or none, in order; one that it refuses is a dead
 * letter.
 */
public abstract class RecordMapOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final FailedRecords failed;
    private final List<String> paths;

    private transient RecordFields fields;

    /**
     * @param paths of the fields that it reads
     */
    protected RecordMapOperator(FailedRecords failed, List<String> paths) {
        this.failed = failed;
        this.paths = paths;
    }

    /** Appends this operator to the stream, with {@code name} as its name and uid. */
    protected final SingleOutputStreamOperator<byte[]> wire(DataStream<byte[]> in, String name) {
        return in.transform(name, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO, this)
                .uid(name);
    }

    /**
     * The record built from {@code record}, in which {@code found} was found; null: none.
     *
     * @throws IllegalArgumentException the record is refused; the message is the reason
     */
    protected abstract byte[] map(byte[] record, RecordFields.Found found);

    @Override
    public final void open() throws Exception {
        super.open();
        fields = new RecordFields(paths);
    }

    @Override
    public final void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        RecordFields.Found found = fields.read(record);
        byte[] made;
        try {
            made = map(record, found);
        } catch (IllegalArgumentException e) {
            failed.refuse(output, record, e.getMessage());
            return;
        }
        if (made == null) {
            failed.end(output);
        } else {
            output.collect(element.replace(made));
        }
    }
}
