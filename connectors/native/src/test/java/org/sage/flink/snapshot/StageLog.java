package org.sage.flink.snapshot;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.core.memory.DataInputViewStreamWrapper;
import org.apache.flink.python.PythonFunctionRunner;
import org.apache.flink.streaming.api.utils.PythonTypeUtils;
import org.apache.flink.types.Row;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ImmutableValue;
import org.msgpack.value.Value;
import org.msgpack.value.ValueFactory;

/** A worker that writes down, a line each, the batches and signals that it gets, in order. */
final class StageLog implements PythonFunctionRunner {

    private static final TypeSerializer<Row> INPUT =
            PythonTypeUtils.TypeInfoToSerializerConverter.typeInfoSerializerConverter(
                    Types.ROW(
                            Types.LONG,
                            Types.LONG,
                            PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));

    final List<String> events = new ArrayList<>();
    boolean isDead;
    /** The elements since the last end of a bundle. */
    int unfinished;

    /** The epoch that the job started from, which is its base where it had no state. */
    long base() {
        return Long.parseLong(events.get(0).split(" ")[1]);
    }

    String last() {
        return events.get(events.size() - 1);
    }

    @Override
    public void process(byte[] element) throws IOException {
        if (isDead) {
            throw new IllegalStateException("the process has ended");
        }
        var view = new DataInputViewStreamWrapper(new ByteArrayInputStream(element));
        Row row = INPUT.deserialize(view);
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker((byte[]) row.getField(2))) {
            ImmutableValue value = unpacker.unpackValue();
            events.add(value.isMapValue() ? signal(value) : rows(value));
        }
        unfinished++;
    }

    @Override
    public void flush() {
        unfinished = 0;
    }

    private static String rows(Value batch) {
        StringBuilder line = new StringBuilder("rows");
        for (Value record : batch.asArrayValue()) {
            line.append(' ').append(record.asArrayValue().get(0).asStringValue().asString());
        }
        return line.toString();
    }

    private static String signal(Value signal) {
        Map<Value, Value> about = field(signal, "epoch").asMapValue().map();
        Value name = about.get(ValueFactory.newString("event"));
        Value watermarkMs = about.get(ValueFactory.newString("watermark_ms"));
        Value isFresh = about.get(ValueFactory.newString("is_fresh"));
        return name.asStringValue().asString()
                + " "
                + about.get(ValueFactory.newString("epoch"))
                + (watermarkMs == null ? "" : " at " + watermarkMs)
                + (isFresh != null && isFresh.asBooleanValue().getBoolean() ? " fresh" : "");
    }

    private static Value field(Value map, String name) {
        return map.asMapValue().map().get(ValueFactory.newString(name));
    }

    @Override
    public void open(ReadableConfig config) {}

    @Override
    public void close() {}

    @Override
    public void processTimer(byte[] timer) {}

    @Override
    public void drainUnregisteredTimers() {}

    @Override
    public Tuple3<String, byte[], Integer> pollResult() {
        return Tuple3.of("", new byte[0], 0); // there is none
    }

    @Override
    public Tuple3<String, byte[], Integer> takeResult() {
        return pollResult();
    }
}
