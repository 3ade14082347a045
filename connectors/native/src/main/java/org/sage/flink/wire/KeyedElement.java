package org.sage.flink.wire;

/**
 * An element of a Python stage with state for each key, {@code [record bin, has state bool, state
 * bin|nil]}, and what the stage emits of a state that has changed, {@code [key bin, state bin|nil]}.
 * A state is nil where the key has none.
 */
public final class KeyedElement {

    private KeyedElement() {}

    /** A changed state; null: none. */
    public record Change(byte[] key, byte[] state) {}

    /** A record of a key whose state the worker has, or that has no key. */
    public static byte[] of(byte[] record) {
        return encode(record, false, null);
    }

    /** The first record of a key, with the key's state. */
    public static byte[] withState(byte[] record, byte[] state) {
        return encode(record, true, state);
    }

    private static byte[] encode(byte[] record, boolean hasState, byte[] state) {
        int bytes = record.length + (state == null ? 0 : state.length) + 16;
        PackedWriter writer = new PackedWriter(bytes);
        writer.arrayHeader(3);
        writer.bytes(record);
        writer.bool(hasState);
        return writer.bytes(state).toByteArray();
    }

    /**
     * The change that the stage emitted.
     *
     * @throws IllegalArgumentException when the bytes are none
     */
    public static Change change(byte[] data) {
        try {
            PackedReader reader = new PackedReader(data);
            reader.arrayHeader();
            return new Change(reader.bytes(), reader.bytes());
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a changed state: " + e.getMessage(), e);
        }
    }
}
