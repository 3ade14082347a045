package org.sage.flink.wire;

/**
 * What a Python stage gets in place of an element. Its wire form is a MessagePack map, by whose first
 * byte the stage distinguishes it from elements, which are arrays: empty, {@code {"states": true}}, or
 * {@code {"refused": element bin}}.
 */
public final class StageSignal {

    /** Opens the stage and has no output. */
    public static final byte[] OPEN = {(byte) 0x80};

    /** Asks the stage for the states that have changed in this bundle. */
    public static final byte[] STATES = {(byte) 0x81, (byte) 0xa6, 's', 't', 'a', 't', 'e', 's', (byte) 0xc3};

    private StageSignal() {}

    /** Tells the stage to make a dead letter of an element, which ended the workers that had it. */
    public static byte[] refused(byte[] element) {
        PackedWriter writer = new PackedWriter(element.length + 64);
        writer.mapHeader(1);
        writer.string("refused");
        return writer.bytes(element).toByteArray();
    }
}
