package org.sage.flink.wire;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import org.msgpack.value.ValueType;

/**
 * Vectors in the fields of records: little-endian float32 bytes, or an array of numbers. The Python
 * twin is {@code sage_flink/flow/vectors.py}.
 */
public final class PackedVector {

    /** Rounding of float32 unit vectors: a similarity this much below a threshold reaches it. */
    public static final double ROUNDING = 1e-6;

    private static final int BIN_8 = 0xc4;
    private static final int BIN_32 = 0xc6;
    private static final VarHandle FLOATS =
            MethodHandles.byteArrayViewVarHandle(float[].class, ByteOrder.LITTLE_ENDIAN);

    private PackedVector() {}

    /**
     * The vector with length 1.
     *
     * @param packed the MessagePack of the field, or null
     * @throws IllegalArgumentException when it is no vector of {@code dim} numbers; the message says
     *     what is wrong, behind the name of the field
     */
    public static double[] unit(byte[] packed, int dim) {
        double[] numbers = packed == null ? null : numbers(packed);
        if (numbers == null) {
            throw new IllegalArgumentException(
                    "must be a vector: float32 bytes or a list of numbers");
        }
        if (numbers.length != dim) {
            throw new IllegalArgumentException(
                    "must be a vector of " + dim + " numbers, got " + numbers.length);
        }
        return unit(numbers);
    }

    /**
     * The vector of these numbers with length 1.
     *
     * @throws IllegalArgumentException when it has no direction
     */
    public static double[] unit(double[] numbers) {
        double squares = 0;
        for (double number : numbers) {
            squares += number * number;
        }
        double length = Math.sqrt(squares);
        if (!Double.isFinite(length) || length == 0) {
            throw new IllegalArgumentException(
                    "must be a vector with a direction: finite numbers, not all of them 0");
        }
        return Arrays.stream(numbers).map(number -> number / length).toArray();
    }

    /** The cosine similarity of two unit vectors of as many numbers. */
    public static double similarity(double[] one, double[] other) {
        double sum = 0;
        for (int i = 0; i < one.length; i++) {
            sum += one[i] * other[i];
        }
        return sum;
    }

    /**
     * The cosine similarity of a unit vector and that in {@code packed}, a field or null; not a
     * number where that is no vector of as many numbers.
     *
     * <p>One pass over the bytes: a join compares each record with all others of an interval.
     */
    public static double similarity(double[] unit, byte[] packed) {
        int bytes = unit.length * Float.BYTES;
        if (packed == null || !isBinary(packed) || binaryLength(packed) != bytes) {
            return similarityOfOther(unit, packed);
        }
        int from = packed.length - bytes;
        double sum = 0;
        double squares = 0;
        for (int i = 0; i < unit.length; i++) {
            float number = (float) FLOATS.get(packed, from + i * Float.BYTES);
            sum += unit[i] * number;
            squares += (double) number * number;
        }
        return sum / Math.sqrt(squares);
    }

    private static double similarityOfOther(double[] unit, byte[] packed) {
        try {
            return similarity(unit, unit(packed, unit.length));
        } catch (IllegalArgumentException e) {
            return Double.NaN;
        }
    }

    private static boolean isBinary(byte[] packed) {
        int first = packed[0] & 0xff;
        return first >= BIN_8 && first <= BIN_32;
    }

    /** The bytes behind the header, whose length is in 1, 2 or 4 bytes. */
    private static int binaryLength(byte[] packed) {
        return packed.length - 1 - (1 << (packed[0] & 0xff) - BIN_8);
    }

    /** The numbers; null where they are none. */
    private static double[] numbers(byte[] packed) {
        PackedReader reader = new PackedReader(packed);
        return switch (reader.type()) {
            case BINARY -> floats(reader.bytes());
            case ARRAY -> listed(packed, reader);
            default -> null;
        };
    }

    private static double[] floats(byte[] bytes) {
        if (bytes.length == 0 || bytes.length % Float.BYTES != 0) {
            return null;
        }
        ByteBuffer buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
        double[] numbers = new double[bytes.length / Float.BYTES];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = buffer.getFloat();
        }
        return numbers;
    }

    private static double[] listed(byte[] packed, PackedReader reader) {
        double[] numbers = new double[reader.arrayHeader()];
        for (int i = 0; i < numbers.length; i++) {
            ValueType type = reader.type();
            if (type != ValueType.INTEGER && type != ValueType.FLOAT) {
                return null;
            }
            int from = reader.position();
            reader.skip();
            numbers[i] =
                    PackedNumber.toDouble(Arrays.copyOfRange(packed, from, reader.position()));
        }
        return numbers.length == 0 ? null : numbers;
    }
}
