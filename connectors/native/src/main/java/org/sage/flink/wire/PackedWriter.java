package org.sage.flink.wire;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** Writer of MessagePack into an array of bytes that grows; each value in its shortest form. */
public final class PackedWriter {

    private static final int FIXMAP_MAX = 0xf;
    private static final int FIXSTR_MAX = 0x1f;
    private static final int BYTE_MAX = 0xff;
    private static final int SHORT_MAX = 0xffff;
    private static final long INT_MAX = 0xffffffffL;

    private byte[] data;
    private int at;

    public PackedWriter(int capacity) {
        data = new byte[Math.max(16, capacity)];
    }

    /** What was written. */
    public byte[] toByteArray() {
        return Arrays.copyOf(data, at);
    }

    /** Where the next value will begin. */
    public int position() {
        return at;
    }

    /** Removes what was written from {@code from} on, and returns it. */
    public byte[] cut(int from) {
        byte[] last = Arrays.copyOfRange(data, from, at);
        at = from;
        return last;
    }

    /** Writes {@code packed} in the place of the values from {@code from} to {@code to}. */
    public void replace(int from, int to, byte[] packed) {
        byte[] behind = cut(to);
        at = from;
        raw(packed, 0, packed.length).raw(behind, 0, behind.length);
    }

    /** The bytes from {@code from} to {@code to}, which are MessagePack. */
    public PackedWriter raw(byte[] packed, int from, int to) {
        require(to - from);
        System.arraycopy(packed, from, data, at, to - from);
        at += to - from;
        return this;
    }

    public void nil() {
        put(0xc0);
    }

    public void bool(boolean flag) {
        put(flag ? 0xc3 : 0xc2);
    }

    public void number(long number) {
        if (number >= 0 ? number < 0x80 : number >= -32) {
            put((int) number);
        } else if (number >= 0) {
            unsigned(number);
        } else if (number >= Byte.MIN_VALUE) {
            sized(0xd0, number, 1);
        } else if (number >= Short.MIN_VALUE) {
            sized(0xd1, number, 2);
        } else if (number >= Integer.MIN_VALUE) {
            sized(0xd2, number, 4);
        } else {
            sized(0xd3, number, 8);
        }
    }

    /** A whole number of 64 bits without a sign. */
    public void unsigned(long bits) {
        if (bits < 0 || bits > INT_MAX) {
            sized(0xcf, bits, 8);
        } else if (bits > SHORT_MAX) {
            sized(0xce, bits, 4);
        } else {
            sized(bits > BYTE_MAX ? 0xcd : 0xcc, bits, bits > BYTE_MAX ? 2 : 1);
        }
    }

    public void number(double number) {
        sized(0xcb, Double.doubleToRawLongBits(number), 8);
    }

    public PackedWriter string(String text) {
        byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
        if (utf8.length <= FIXSTR_MAX) {
            put(0xa0 | utf8.length);
        } else {
            header(0xd9, utf8.length);
        }
        return raw(utf8, 0, utf8.length);
    }

    /** The bytes as a bin, null as nil. */
    public PackedWriter bytes(byte[] bytes) {
        if (bytes == null) {
            nil();
            return this;
        }
        header(0xc4, bytes.length);
        return raw(bytes, 0, bytes.length);
    }

    public PackedWriter arrayHeader(int size) {
        closeArray(open(), size);
        return this;
    }

    public PackedWriter mapHeader(int size) {
        closeMap(open(), size);
        return this;
    }

    /** Begins a map or array of a size that is not yet known; returns where it begins. */
    public int open() {
        put(0);
        return at - 1;
    }

    /** Ends the array that {@link #open} began. */
    public void closeArray(int from, int size) {
        close(from, size, 0x90, 0xdc);
    }

    /** Ends the map that {@link #open} began. */
    public void closeMap(int from, int size) {
        close(from, size, 0x80, 0xde);
    }

    private void close(int from, int size, int fixed, int sized) {
        if (size <= FIXMAP_MAX) {
            data[from] = (byte) (fixed | size);
            return;
        }
        int width = size <= SHORT_MAX ? 2 : 4;
        require(width);
        System.arraycopy(data, from + 1, data, from + 1 + width, at - from - 1);
        int end = at + width;
        at = from;
        sized(width == 2 ? sized : sized + 1, size, width);
        at = end;
    }

    /** The type and the length of a text or bin; {@code type} is that with a length of one byte. */
    private void header(int type, int length) {
        if (length <= BYTE_MAX) {
            sized(type, length, 1);
        } else if (length <= SHORT_MAX) {
            sized(type + 1, length, 2);
        } else {
            sized(type + 2, length, 4);
        }
    }

    private void sized(int type, long bits, int size) {
        require(size + 1);
        data[at++] = (byte) type;
        for (int shift = 8 * (size - 1); shift >= 0; shift -= 8) {
            data[at++] = (byte) (bits >> shift);
        }
    }

    private void put(int one) {
        require(1);
        data[at++] = (byte) one;
    }

    private void require(int more) {
        if (more > data.length - at) {
            data = Arrays.copyOf(data, Math.max(at + more, 2 * data.length));
        }
    }
}
