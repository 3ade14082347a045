package org.sage.flink.connector;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.StreamReadConstraints;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.io.JsonEOFException;
import org.sage.flink.wire.PackedWriter;

/**
 * JSON texts as values of wire records. It takes what {@code plain_json.py} takes and makes the same
 * value of it; the words for what is wrong with a text are those of its parser.
 */
public final class JsonDecoder {

    /** As in Python. */
    private static final int DEPTH_MAX = 100;

    private static final int UINT_64_DIGITS = 20;
    private static final char BYTE_ORDER_MARK = '\uFEFF';
    private static final int BYTE_ORDER_MARK_BYTES = 3;
    private static final char REPLACEMENT = '\uFFFD';

    /** A message has at most the bytes that a topic allows; Python knows no other limit. */
    private static final JsonFactory FACTORY =
            JsonFactory.builder()
                    .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
                    .streamReadConstraints(
                            StreamReadConstraints.builder()
                                    .maxNumberLength(Integer.MAX_VALUE)
                                    .maxStringLength(Integer.MAX_VALUE)
                                    .maxNameLength(Integer.MAX_VALUE)
                                    .build())
                    .build();

    private final JsonParser parser;
    private final PackedWriter writer;

    private JsonDecoder(JsonParser parser, PackedWriter writer) {
        this.parser = parser;
        this.writer = writer;
    }

    /**
     * Writes the value of the text in {@code json}.
     *
     * @throws IllegalArgumentException it is not JSON in UTF-8, or a record cannot carry its value;
     *     the message says why
     */
    public static void decode(byte[] json, PackedWriter writer) {
        try (JsonParser parser = FACTORY.createParser(text(json))) {
            parser.nextToken();
            new JsonDecoder(parser, writer).value(0);
            if (parser.nextToken() != null) {
                throw refused("there is more than one value");
            }
        } catch (JsonEOFException e) {
            throw refused("the text ends before its value does");
        } catch (JsonProcessingException e) {
            long at = e.getLocation() == null ? 0 : e.getLocation().getCharOffset();
            throw refused(e.getOriginalMessage() + " (character " + at + ")");
        } catch (IOException e) {
            throw refused(e.getMessage());
        }
    }

    private static IllegalArgumentException refused(String why) {
        return new IllegalArgumentException("not JSON: " + why);
    }

    private static String text(byte[] json) {
        String text = new String(json, StandardCharsets.UTF_8);
        if (text.indexOf(REPLACEMENT) >= 0) {
            requireUtf8(json);
        }
        return hasMark(text) ? text.substring(1) : text;
    }

    private static boolean hasMark(String text) {
        return !text.isEmpty() && text.charAt(0) == BYTE_ORDER_MARK;
    }

    private static void requireUtf8(byte[] json) {
        CharsetDecoder decoder = StandardCharsets.UTF_8.newDecoder();
        ByteBuffer bytes = ByteBuffer.wrap(json);
        CharBuffer chars = CharBuffer.allocate(json.length);
        if (decoder.decode(bytes, chars, true).isError()) {
            boolean isMarked = hasMark(chars.flip().toString());
            int at = bytes.position() - (isMarked ? BYTE_ORDER_MARK_BYTES : 0);
            throw new IllegalArgumentException("not valid UTF-8 at byte " + at);
        }
    }

    private void value(int depth) throws IOException {
        JsonToken token = parser.currentToken();
        if (token == null) {
            throw refused("the text ends before its value does");
        }
        switch (token) {
            case VALUE_STRING -> writer.string(whole(parser.getText()));
            case VALUE_NUMBER_INT -> integer();
            case VALUE_NUMBER_FLOAT -> writer.number(finite(parser.getDoubleValue()));
            case VALUE_TRUE -> writer.bool(true);
            case VALUE_FALSE -> writer.bool(false);
            case VALUE_NULL -> writer.nil();
            case START_ARRAY -> array(depth + 1);
            case START_OBJECT -> object(depth + 1);
            default -> throw refused("there is no value");
        }
    }

    private void array(int depth) throws IOException {
        requireDepth(depth);
        int from = writer.open();
        int size = 0;
        while (parser.nextToken() != JsonToken.END_ARRAY) {
            value(depth);
            size++;
        }
        writer.closeArray(from, size);
    }

    /** Of a name that occurs twice the last value counts, in the place of the first. */
    private void object(int depth) throws IOException {
        requireDepth(depth);
        int from = writer.open();
        Map<String, int[]> values = new HashMap<>();
        while (parser.nextToken() != JsonToken.END_OBJECT) {
            String name = whole(parser.currentName());
            parser.nextToken();
            int[] before = values.get(name);
            if (before != null) {
                replace(before, depth, values.values());
                continue;
            }
            writer.string(name);
            int valueFrom = writer.position();
            value(depth);
            values.put(name, new int[] {valueFrom, writer.position()});
        }
        writer.closeMap(from, values.size());
    }

    private void replace(int[] before, int depth, Collection<int[]> values) throws IOException {
        int from = writer.position();
        value(depth);
        byte[] value = writer.cut(from);
        int end = before[1];
        int longer = value.length - (end - before[0]);
        writer.replace(before[0], end, value);
        before[1] += longer;
        for (int[] other : values) {
            if (other[0] >= end && other != before) {
                other[0] += longer;
                other[1] += longer;
            }
        }
    }

    private static void requireDepth(int depth) {
        if (depth > DEPTH_MAX) {
            throw new IllegalArgumentException(
                    "the value is nested more than " + DEPTH_MAX + " deep");
        }
    }

    private void integer() throws IOException {
        if (parser.getNumberType() != JsonParser.NumberType.BIG_INTEGER) {
            writer.number(parser.getLongValue());
            return;
        }
        boolean mayFit = parser.getTextLength() <= UINT_64_DIGITS;
        if (!mayFit || parser.getBigIntegerValue().bitLength() > Long.SIZE
                || parser.getBigIntegerValue().signum() < 0) {
            throw new IllegalArgumentException("a whole number has more than 64 bits");
        }
        writer.unsigned(parser.getBigIntegerValue().longValue());
    }

    private static double finite(double number) {
        if (!Double.isFinite(number)) {
            throw refused("Number out of range");
        }
        return number;
    }

    /** The text, where it has no half of a pair of surrogates. */
    private static String whole(String text) {
        for (int i = 0; i < text.length(); i++) {
            if (Character.isSurrogate(text.charAt(i))) {
                boolean isPair =
                        i + 1 < text.length()
                                && Character.isSurrogatePair(text.charAt(i), text.charAt(i + 1));
                if (!isPair) {
                    throw refused("a text has half a pair of surrogates");
                }
                i++;
            }
        }
        return text;
    }
}
