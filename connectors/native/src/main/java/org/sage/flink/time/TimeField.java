package org.sage.flink.time;

import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.OffsetDateTime;
import java.util.regex.Pattern;
import org.msgpack.core.MessageFormat;
import org.msgpack.value.ValueType;
import org.sage.flink.wire.PackedNumber;
import org.sage.flink.wire.PackedReader;

/**
 * Event time from a field: a number in a unit since the epoch, or text in RFC 3339 with its offset.
 * The Python twin is {@code sage_flink/flow/stateful/times.py}.
 */
final class TimeField {

    /** The first millisecond of the year 1. */
    private static final long FIRST_MS = -62_135_596_800_000L;

    private static final int MS_PER_S = 1_000;
    private static final String NO_TIME = "is neither a number nor a time in RFC 3339";
    private static final Pattern RFC_3339 =
            Pattern.compile(
                    "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,9})?)?"
                            + "(Z|[+-][0-9]{2}:[0-9]{2})");

    private TimeField() {}

    /**
     * Milliseconds since the epoch of the MessagePack value {@code packed}.
     *
     * @param unit s, ms, us or ns
     * @throws IllegalArgumentException when it is no time; the message says what it is
     */
    static long millis(byte[] packed, String unit) {
        ValueType type = MessageFormat.valueOf(packed[0]).getValueType();
        long ms;
        if (PackedNumber.isWhole(packed)) {
            ms = millis(PackedNumber.toLong(packed), unit);
        } else if (type == ValueType.FLOAT) {
            ms = millis(PackedNumber.toDouble(packed), unit);
        } else if (type == ValueType.STRING) {
            byte[] text = new PackedReader(packed).bytes();
            ms = millis(new String(text, StandardCharsets.UTF_8));
        } else {
            throw new IllegalArgumentException(NO_TIME);
        }
        if (ms < FIRST_MS) {
            throw new IllegalArgumentException("is before the year 1");
        }
        return ms;
    }

    /**
     * The record's own time; 0 means that it is missing.
     *
     * @throws IllegalArgumentException when it has none
     */
    static long require(long timestampMs) {
        if (timestampMs == 0) {
            throw new IllegalArgumentException("it has no event time: timestamp_ms is 0");
        }
        if (timestampMs < FIRST_MS) {
            throw new IllegalArgumentException("its event time is before the year 1");
        }
        return timestampMs;
    }

    private static long millis(long number, String unit) {
        return switch (unit) {
            case "s" -> {
                long limit = Long.MAX_VALUE / MS_PER_S;
                yield Math.max(-limit, Math.min(limit, number)) * MS_PER_S;
            }
            case "us" -> Math.floorDiv(number, 1_000L);
            case "ns" -> Math.floorDiv(number, 1_000_000L);
            default -> number;
        };
    }

    private static long millis(double number, String unit) {
        if (!Double.isFinite(number)) {
            throw new IllegalArgumentException("is not a finite number");
        }
        return (long)
                Math.floor(
                        switch (unit) {
                            case "s" -> number * MS_PER_S;
                            case "us" -> number / 1e3;
                            case "ns" -> number / 1e6;
                            default -> number;
                        });
    }

    private static long millis(String text) {
        if (!RFC_3339.matcher(text).matches()) {
            throw new IllegalArgumentException(NO_TIME);
        }
        try {
            return OffsetDateTime.parse(text).toInstant().toEpochMilli();
        } catch (DateTimeException | ArithmeticException e) {
            throw new IllegalArgumentException(NO_TIME, e);
        }
    }
}
