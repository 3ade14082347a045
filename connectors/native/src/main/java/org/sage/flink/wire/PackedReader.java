package org.sage.flink.wire;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.msgpack.core.MessageFormat;
import org.msgpack.value.ValueType;

/**
 * Reader of MessagePack over an array of bytes, from the first value to the last.
 *
 * <p>Operators look at a few fields of every record. An unpacker of the MessagePack library costs
 * more to make than such a look, and decodes each text that it passes.
 *
 * <p>Its methods throw {@link Malformed} where the next value is of another type, or where the bytes
 * end before it does.
 */
public final class PackedReader {

    private static final int NIL = 0xc0;
    private static final int FIXSTR_MAX = 0x1f;
    private static final int FIXARRAY_MAX = 0xf;

    /** Bytes that are not what they should be. */
    public static final class Malformed extends IllegalArgumentException {

        private static final long serialVersionUID = 1L;

        private Malformed(String message) {
            super(message);
        }
    }

    private final byte[] data;
    private int at;

    public PackedReader(byte[] data) {
        this.data = data;
    }

    /** Where the next value begins. */
    public int position() {
        return at;
    }

    /** The type of the next value. */
    public ValueType type() {
        return MessageFormat.valueOf((byte) first()).getValueType();
    }

    /** The number of values in the array, whose first one is the next value. */
    public int arrayHeader() {
        int first = take();
        if ((first & 0xf0) == 0x90) {
            return first & FIXARRAY_MAX;
        }
        return switch (first) {
            case 0xdc -> number(2);
            case 0xdd -> number(4);
            default -> throw other("an array", first);
        };
    }

    /** The number of entries in the map, whose first key is the next value. */
    public int mapHeader() {
        int first = take();
        if ((first & 0xf0) == 0x80) {
            return first & FIXARRAY_MAX;
        }
        return switch (first) {
            case 0xde -> number(2);
            case 0xdf -> number(4);
            default -> throw other("a map", first);
        };
    }

    /** The length in bytes of the text, whose first byte is at {@link #position}. */
    public int stringHeader() {
        int first = take();
        if ((first & 0xe0) == 0xa0) {
            return within(first & FIXSTR_MAX);
        }
        return switch (first) {
            case 0xd9 -> within(number(1));
            case 0xda -> within(number(2));
            case 0xdb -> within(number(4));
            default -> throw other("text", first);
        };
    }

    /** Moves {@code length} bytes on. */
    public void advance(int length) {
        at += within(length);
    }

    /** The text. */
    public String string() {
        int length = stringHeader();
        String text = new String(data, at, length, StandardCharsets.UTF_8);
        at += length;
        return text;
    }

    /** The bytes of a bin or str, null for nil. */
    public byte[] bytes() {
        int first = first();
        if (first == NIL) {
            at++;
            return null;
        }
        int length;
        if (first >= 0xc4 && first <= 0xc6) {
            at++;
            length = within(number(1 << first - 0xc4));
        } else {
            length = stringHeader();
        }
        at += length;
        return Arrays.copyOfRange(data, at - length, at);
    }

    /** The whole number; an unsigned one beyond 63 bits is refused. */
    public long wholeNumber() {
        int first = first();
        if (first < 0x80 || first >= 0xe0) {
            at++;
            return (byte) first;
        }
        if (first < 0xcc || first > 0xd3) {
            throw other("a whole number", first);
        }
        at++;
        int size = 1 << (first - 0xcc & 3);
        within(size);
        long bits = first >= 0xd0 ? data[at] : data[at] & 0xffL;
        for (int i = 1; i < size; i++) {
            bits = bits << 8 | data[at + i] & 0xff;
        }
        at += size;
        if (first == 0xcf && bits < 0) {
            throw new Malformed("a whole number has more than 63 bits");
        }
        return bits;
    }

    /** Moves behind the next value, with all that is in it. */
    public void skip() {
        long left = 1;
        while (left > 0) {
            left += skipOne() - 1;
        }
    }

    /** Moves behind the next value, or into it, where it has values of its own: their number. */
    private long skipOne() {
        int first = take();
        if (first < 0x80 || first >= 0xe0) {
            return 0;
        }
        if (first < 0x90) {
            return 2L * (first & FIXARRAY_MAX);
        }
        if (first < 0xa0) {
            return first & FIXARRAY_MAX;
        }
        if (first < NIL) {
            advance(first & FIXSTR_MAX);
            return 0;
        }
        switch (first) {
            case NIL, 0xc2, 0xc3 -> {}
            case 0xc4, 0xd9 -> advance(number(1));
            case 0xc5, 0xda -> advance(number(2));
            case 0xc6, 0xdb -> advance(number(4));
            case 0xc7 -> advance(number(1) + 1);
            case 0xc8 -> advance(number(2) + 1);
            case 0xc9 -> advance(number(4) + 1);
            case 0xca -> advance(4);
            case 0xcb -> advance(8);
            case 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd1, 0xd2, 0xd3 -> advance(1 << (first - 0xcc & 3));
            case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8 -> advance((1 << first - 0xd4) + 1);
            case 0xdc -> {
                return number(2);
            }
            case 0xdd -> {
                return number(4);
            }
            case 0xde -> {
                return 2L * number(2);
            }
            case 0xdf -> {
                return 2L * number(4);
            }
            default -> throw other("a value", first);
        }
        return 0;
    }

    private int first() {
        within(1);
        return data[at] & 0xff;
    }

    private int take() {
        int first = first();
        at++;
        return first;
    }

    /** An unsigned number of this many bytes; one beyond 31 bits cannot be a size here. */
    private int number(int size) {
        within(size);
        int number = 0;
        for (int i = 0; i < size; i++) {
            number = number << 8 | data[at + i] & 0xff;
        }
        at += size;
        return number;
    }

    private int within(int length) {
        if (length < 0 || length > data.length - at) {
            throw new Malformed("the bytes end within a value");
        }
        return length;
    }

    private static Malformed other(String required, int first) {
        return new Malformed(
                String.format("required %s, got the type 0x%02x", required, first));
    }
}
