package org.sage.flink.connector;

import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.msgpack.value.ValueType;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedWriter;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordMapOperator;
import org.sage.flink.wire.RequiredField;

/**
 * Operator that decodes messages in JSON: the value of each wire record, bytes, becomes that of the
 * JSON text. A message that is not JSON is a dead letter.
 */
public final class JsonDecodeOperator extends RecordMapOperator {

    private static final long serialVersionUID = 1L;

    private static final String TOMBSTONE =
            "the message has no value (a tombstone), and ids are not mapped: set fields.id";

    private JsonDecodeOperator(FailedRecords failed) {
        super(failed, List.of());
    }

    /** Appends this operator to the stream, as a part of {@code step}. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String step, String job, String run) {
        return new JsonDecodeOperator(new FailedRecords(step, job, run)).wire(in, step + ".json");
    }

    @Override
    protected byte[] map(byte[] record, RecordFields.Found found) {
        byte[] json = message(found);
        PackedWriter decoded = new PackedWriter(json.length + 16);
        JsonDecoder.decode(json, decoded);
        return RecordChange.withValue(record, found, decoded.toByteArray());
    }

    private static byte[] message(RecordFields.Found found) {
        ValueType type = found.valueType();
        if (type == ValueType.NIL) {
            throw new IllegalArgumentException(TOMBSTONE);
        }
        if (type != ValueType.BINARY) {
            throw new IllegalArgumentException(
                    "the message must be bytes, got " + RequiredField.typeName(type));
        }
        return found.valueBytes();
    }
}
