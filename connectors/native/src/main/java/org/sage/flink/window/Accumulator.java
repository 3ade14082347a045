package org.sage.flink.window;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/** The state of one aggregate in one window. */
abstract class Accumulator {

    /** Adds a record; {@code packed} is the MessagePack of the field, null where it has no value. */
    abstract void add(byte[] packed, long timestampMs);

    /** The same for an aggregate of two fields: {@code value} is the MessagePack of the second. */
    void add(byte[] packed, byte[] value, long timestampMs) {
        add(packed, timestampMs);
    }

    /** Adds what an accumulator of the same aggregate holds. */
    abstract void merge(Accumulator other);

    /** Writes the result, nil where there is none. */
    abstract void packResult(MessagePacker packer) throws IOException;

    abstract void write(DataOutputView out) throws IOException;

    abstract void read(DataInputView in) throws IOException;

    /** How many values the result leaves out. */
    long omitted() {
        return 0;
    }

    static void writeBytes(DataOutputView out, byte[] bytes) throws IOException {
        out.writeInt(bytes == null ? -1 : bytes.length);
        if (bytes != null) {
            out.write(bytes);
        }
    }

    static byte[] readBytes(DataInputView in) throws IOException {
        int length = in.readInt();
        if (length < 0) {
            return null;
        }
        byte[] bytes = new byte[length];
        in.readFully(bytes);
        return bytes;
    }
}
