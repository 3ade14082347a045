package org.sage.flink.wire;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;

/** Wire records with another time or key; the rest of their bytes is copied. */
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
