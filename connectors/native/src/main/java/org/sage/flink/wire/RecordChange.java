package org.sage.flink.wire;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ValueType;

/** Wire records with another time, key or field; the rest of their bytes is copied. */
public final class RecordChange {

    private RecordChange() {}

    /** The record {@code data}, in which {@code found} was found, at another time. */
    public static byte[] withTimestamp(byte[] data, RecordFields.Found found, long timestampMs) {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.addPayload(data, 0, found.timestampFrom());
            packer.packLong(timestampMs);
            packer.addPayload(data, found.timestampTo(), data.length - found.timestampTo());
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    /**
     * The record {@code data} whose value has {@code packed} as its last field, called {@code name}.
     *
     * @throws IllegalArgumentException when the value is not a map
     */
    public static byte[] withField(byte[] data, String name, byte[] packed) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data);
                MessageBufferPacker fields = MessagePack.newDefaultBufferPacker();
                MessageBufferPacker packer =
                        new MessagePack.PackerConfig()
                                .withBufferSize(data.length + packed.length + name.length() + 16)
                                .newBufferPacker()) {
            unpacker.unpackArrayHeader();
            unpacker.skipValue();
            int from = position(unpacker);
            if (unpacker.getNextFormat().getValueType() != ValueType.MAP) {
                throw new IllegalArgumentException(
                        "its value must be a map, to take the field '" + name + "'");
            }
            int size = unpacker.unpackMapHeader();
            int kept = 0;
            for (int i = 0; i < size; i++) {
                int start = position(unpacker);
                boolean isOther = !isText(unpacker, name);
                unpacker.skipValue();
                if (isOther) {
                    kept++;
                    fields.addPayload(data, start, position(unpacker) - start);
                }
            }
            int to = position(unpacker);
            packer.addPayload(data, 0, from).packMapHeader(kept + 1);
            packer.addPayload(fields.toByteArray()).packString(name).addPayload(packed);
            packer.addPayload(data, to, data.length - to);
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    private static boolean isText(MessageUnpacker unpacker, String text) throws IOException {
        if (unpacker.getNextFormat().getValueType() == ValueType.STRING) {
            return unpacker.unpackString().equals(text);
        }
        unpacker.skipValue();
        return false;
    }

    private static int position(MessageUnpacker unpacker) {
        return (int) unpacker.getTotalReadBytes();
    }

    /** The record {@code data}, in which {@code found} was found, with another key. */
    public static byte[] withKey(byte[] data, RecordFields.Found found, byte[] key) {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.addPayload(data, 0, found.timestampTo());
            WireRecord.packBytes(packer, key);
            packer.addPayload(data, found.keyTo(), data.length - found.keyTo());
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }
}
