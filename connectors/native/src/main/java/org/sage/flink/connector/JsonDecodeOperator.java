package org.sage.flink.connector;

import java.io.IOException;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SideOutputDataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.OutputTag;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ValueType;

/**
 * Operator that decodes messages in JSON: the value of each wire record, bytes, becomes that of the
 * JSON text. Order is kept.
 *
 * <p>A message that it cannot decode goes unchanged to the side output {@link #rest}. The same
 * decoder in Python reads it there, and nearly always makes a dead letter of it.
 */
public final class JsonDecodeOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private static final OutputTag<byte[]> REST =
            new OutputTag<>("rest", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    /** Appends this operator to the stream, with {@code name} as its name and uid. */
    public static SingleOutputStreamOperator<byte[]> wire(DataStream<byte[]> in, String name) {
        return in.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new JsonDecodeOperator())
                .uid(name);
    }

    /** The messages that the operator of {@link #wire} cannot decode. */
    public static SideOutputDataStream<byte[]> rest(SingleOutputStreamOperator<byte[]> decoded) {
        return decoded.getSideOutput(REST);
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        byte[] decoded;
        try {
            decoded = decode(record);
        } catch (IOException e) {
            output.collect(REST, element);
            return;
        }
        output.collect(element.replace(decoded));
    }

    private static byte[] decode(byte[] record) throws IOException {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(record);
                MessageBufferPacker packer =
                        new MessagePack.PackerConfig()
                                .withBufferSize(record.length + 256)
                                .newBufferPacker()) {
            unpacker.unpackArrayHeader();
            unpacker.skipValue();
            int from = (int) unpacker.getTotalReadBytes();
            if (unpacker.getNextFormat().getValueType() != ValueType.BINARY) {
                throw new IOException("the message must be bytes");
            }
            byte[] json = unpacker.readPayload(unpacker.unpackBinaryHeader());
            int to = (int) unpacker.getTotalReadBytes();
            packer.writePayload(record, 0, from);
            JsonValue.pack(json, packer);
            packer.writePayload(record, to, record.length - to);
            return packer.toByteArray();
        }
    }
}
