package org.sage.flink.keyed;

import java.util.List;
import java.util.stream.Stream;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedNumber;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.VectorField;

/**
 * Operator before the exchange of a keyed step: a record that the step cannot take is a dead letter,
 * and any other one has its event time as Flink's timestamp.
 */
public final class KeyedInputOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final FailedRecords failed;
    private final String readCounter;
    private final boolean takesDeletes;
    private final List<String> numbers;
    private final List<VectorField> vectors;

    private transient RecordFields fields;

    private KeyedInputOperator(
            FailedRecords failed,
            String readCounter,
            boolean takesDeletes,
            List<String> numbers,
            List<VectorField> vectors) {
        this.failed = failed;
        this.readCounter = readCounter;
        this.takesDeletes = takesDeletes;
        this.numbers = numbers;
        this.vectors = vectors;
    }

    /**
     * Appends this operator to the stream, with {@code name} as its name and uid.
     *
     * @param readCounter counts the records of this input
     * @param takesDeletes whether the records may be deletes
     * @param numbers paths of fields whose values must be finite numbers, where there are any
     * @param vectors fields that must be vectors
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in,
            String name,
            FailedRecords failed,
            String readCounter,
            boolean takesDeletes,
            List<String> numbers,
            List<VectorField> vectors) {
        return in.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new KeyedInputOperator(
                                failed, readCounter, takesDeletes, numbers, vectors))
                .uid(name);
    }

    @Override
    public void open() throws Exception {
        super.open();
        Stream<String> paths = vectors.stream().map(VectorField::path);
        fields = new RecordFields(Stream.concat(numbers.stream(), paths).toList());
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        RecordFields.Found found = fields.read(record);
        String flaw = Keys.flaw(found, takesDeletes);
        if (flaw.isEmpty()) {
            flaw = flaw(found);
        }
        if (flaw.isEmpty()) {
            output.collect(element.replace(record, found.timestampMs()));
        } else {
            failed.refuse(output, record, flaw, readCounter);
        }
    }

    private String flaw(RecordFields.Found found) {
        for (int i = 0; i < numbers.size(); i++) {
            byte[] packed = found.fields()[i];
            if (packed != null && !PackedNumber.isFinite(packed)) {
                return "its field '" + numbers.get(i) + "' must be a finite number";
            }
        }
        for (int i = 0; i < vectors.size(); i++) {
            String flaw = vectors.get(i).flaw(found.fields()[numbers.size() + i]);
            if (!flaw.isEmpty()) {
                return flaw;
            }
        }
        return "";
    }
}
