package org.sage.flink.wire;

/** The limit of a record's size, as in {@code sage_flink/common/records.py}. */
public final class RecordLimit {

    private static final int BYTES_MAX = 65 << 20;

    private RecordLimit() {}

    /**
     * Checks the size of a record that an operator made.
     *
     * @throws IllegalArgumentException when it is too large; the message is the reason of a dead
     *     letter
     */
    public static void check(int bytes) {
        if (bytes > BYTES_MAX) {
            throw new IllegalArgumentException(
                    "the record has "
                            + bytes
                            + " bytes, at most "
                            + BYTES_MAX
                            + " can be sent on; keep a large content in a store, and its address"
                            + " in the record");
        }
    }
}
