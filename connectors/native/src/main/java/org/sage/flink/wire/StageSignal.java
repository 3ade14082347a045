package org.sage.flink.wire;

/**
 * What a Python stage gets in place of an element. Its wire form is a MessagePack map, by whose first
 * byte the stage distinguishes it from elements, which are arrays: empty, {@code {"states": true}},
 * {@code {"refused": element bin}}, or {@code {"epoch": {"event": text, "epoch": number, ...}}}.
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

    /** The job starts from {@code epoch}; {@code isFresh}: without a state. */
    public static byte[] restored(long epoch, boolean isFresh) {
        PackedWriter writer = epoch("restore", epoch, 3);
        writer.string("is_fresh").bool(isFresh);
        return writer.toByteArray();
    }

    /** The checkpoint of {@code epoch} begins. */
    public static byte[] ended(long epoch) {
        return epoch("end", epoch, 2).toByteArray();
    }

    /** The checkpoint of {@code epoch} is complete; {@code Long.MIN_VALUE}: without a watermark. */
    public static byte[] committed(long epoch, long watermarkMs) {
        if (watermarkMs == Long.MIN_VALUE) {
            return epoch("commit", epoch, 2).toByteArray();
        }
        PackedWriter writer = epoch("commit", epoch, 3);
        writer.string("watermark_ms").number(watermarkMs);
        return writer.toByteArray();
    }

    private static PackedWriter epoch(String event, long epoch, int size) {
        PackedWriter writer = new PackedWriter(64);
        writer.mapHeader(1).string("epoch").mapHeader(size);
        writer.string("event").string(event).string("epoch").number(epoch);
        return writer;
    }
}
