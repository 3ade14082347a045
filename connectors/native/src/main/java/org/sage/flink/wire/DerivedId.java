package org.sage.flink.wire;

import com.rfksystems.blake2b.Blake2b;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;

/** Ids of what a step makes of a record, as {@code derived_id} in {@code common/records.py}. */
public final class DerivedId {

    private static final int BYTES = 16;

    private DerivedId() {}

    /** The id of the {@code ordinal}-th thing that {@code step} makes of {@code parent}. */
    public static String of(String parent, String step, int ordinal) {
        return HexFormat.of().formatHex(digest(parent + "\0" + step + "\0" + ordinal, BYTES));
    }

    /** The BLAKE2b of the text in UTF-8, of this many bytes. */
    public static byte[] digest(String text, int bytes) {
        byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
        Blake2b hash = new Blake2b(null, bytes, null, null);
        hash.update(utf8, 0, utf8.length);
        byte[] digest = new byte[bytes];
        hash.digest(digest, 0);
        return digest;
    }
}
