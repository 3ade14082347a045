package org.sage.flink.wire;

import java.nio.ByteBuffer;

/** Numbers in MessagePack, read without an unpacker: windows read one for each record and aggregate. */
public final class PackedNumber {

    private static final int NEGATIVE_FIXINT = 0xe0;
    private static final int UINT_64 = 0xcf;

    private PackedNumber() {}

    /** Whether the MessagePack value is a number, and neither infinite nor NaN. */
    public static boolean isFinite(byte[] packed) {
        return isWhole(packed)
                || (packed[0] & 0xff) == UINT_64
                || (isFloat(packed) && Double.isFinite(toDouble(packed)));
    }

    /** Whether it is a whole number of signed 64 bits. */
    public static boolean isWhole(byte[] packed) {
        int first = packed[0] & 0xff;
        boolean fixint = first < 0x80 || first >= NEGATIVE_FIXINT;
        boolean sized = first >= 0xcc && first <= 0xd3;
        return fixint || sized && !(first == UINT_64 && packed[1] < 0);
    }

    /** The whole number; only where {@link #isWhole}. */
    public static long toLong(byte[] packed) {
        ByteBuffer rest = ByteBuffer.wrap(packed, 1, packed.length - 1);
        return switch (packed[0] & 0xff) {
            case 0xcc -> rest.get() & 0xffL;
            case 0xcd -> rest.getShort() & 0xffffL;
            case 0xce -> rest.getInt() & 0xffffffffL;
            case UINT_64, 0xd3 -> rest.getLong();
            case 0xd0 -> rest.get();
            case 0xd1 -> rest.getShort();
            case 0xd2 -> rest.getInt();
            default -> packed[0];
        };
    }

    /** The number, rounded to the nearest one that a double can be. */
    public static double toDouble(byte[] packed) {
        ByteBuffer rest = ByteBuffer.wrap(packed, 1, packed.length - 1);
        int first = packed[0] & 0xff;
        if (first == 0xca) {
            return rest.getFloat();
        }
        if (first == 0xcb) {
            return rest.getDouble();
        }
        long whole = toLong(packed);
        boolean isUnsigned = first == UINT_64 && whole < 0;
        return isUnsigned ? unsigned(whole) : whole;
    }

    /** The digits of a whole number, with or without a sign. */
    public static String toText(byte[] packed) {
        long whole = toLong(packed);
        boolean isUnsigned = (packed[0] & 0xff) == UINT_64;
        return isUnsigned ? Long.toUnsignedString(whole) : Long.toString(whole);
    }

    private static double unsigned(long bits) {
        return Double.parseDouble(Long.toUnsignedString(bits));
    }

    private static boolean isFloat(byte[] packed) {
        int first = packed[0] & 0xff;
        return first == 0xca || first == 0xcb;
    }
}
