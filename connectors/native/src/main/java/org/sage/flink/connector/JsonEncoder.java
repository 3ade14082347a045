package org.sage.flink.connector;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.Base64;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonGenerator;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.StreamWriteFeature;
import org.msgpack.core.MessageFormat;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ValueType;

/**
 * Values of wire records as JSON texts. It refuses what {@code plain_json.py} refuses and writes
 * equal values: bytes as text in base64, names that are numbers or bytes as text.
 */
public final class JsonEncoder {

    /** Deeper than any value that JSON messages can have; a text of more is read by few. */
    private static final int DEPTH_MAX = 500;

    private static final JsonFactory FACTORY =
            JsonFactory.builder().enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER).build();

    private JsonEncoder() {}

    /**
     * The JSON text of the MessagePack value in {@code data} from {@code from} to {@code to}.
     *
     * @throws IllegalArgumentException JSON cannot hold it; the message says why
     */
    public static byte[] encode(byte[] data, int from, int to) {
        ByteArrayOutputStream json = new ByteArrayOutputStream(2 * (to - from) + 16);
        try (MessageUnpacker value = MessagePack.newDefaultUnpacker(data, from, to - from);
                JsonGenerator generator = FACTORY.createGenerator(json)) {
            write(value, generator, 0);
        } catch (IOException e) {
            throw refused(e.getMessage());
        }
        return json.toByteArray();
    }

    private static IllegalArgumentException refused(String why) {
        return new IllegalArgumentException("JSON cannot hold the value: " + why);
    }

    private static void write(MessageUnpacker value, JsonGenerator json, int depth)
            throws IOException {
        if (depth > DEPTH_MAX) {
            throw refused("it is nested more than " + DEPTH_MAX + " deep");
        }
        ValueType type = value.getNextFormat().getValueType();
        switch (type) {
            case NIL -> {
                value.unpackNil();
                json.writeNull();
            }
            case BOOLEAN -> json.writeBoolean(value.unpackBoolean());
            case INTEGER -> integer(value, json);
            case FLOAT -> json.writeNumber(finite(value.unpackDouble()));
            case STRING -> json.writeString(value.unpackString());
            case BINARY -> json.writeString(base64(value));
            case ARRAY -> array(value, json, depth);
            case MAP -> map(value, json, depth);
            default -> throw refused("it has an extension type");
        }
    }

    private static void integer(MessageUnpacker value, JsonGenerator json) throws IOException {
        if (value.getNextFormat() == MessageFormat.UINT64) {
            json.writeNumber(value.unpackBigInteger());
        } else {
            json.writeNumber(value.unpackLong());
        }
    }

    private static void array(MessageUnpacker value, JsonGenerator json, int depth)
            throws IOException {
        int size = value.unpackArrayHeader();
        json.writeStartArray();
        for (int i = 0; i < size; i++) {
            write(value, json, depth + 1);
        }
        json.writeEndArray();
    }

    private static void map(MessageUnpacker value, JsonGenerator json, int depth)
            throws IOException {
        int size = value.unpackMapHeader();
        json.writeStartObject();
        for (int i = 0; i < size; i++) {
            json.writeFieldName(name(value));
            write(value, json, depth + 1);
        }
        json.writeEndObject();
    }

    private static String name(MessageUnpacker value) throws IOException {
        ValueType type = value.getNextFormat().getValueType();
        return switch (type) {
            case STRING -> value.unpackString();
            case INTEGER -> value.unpackBigInteger().toString();
            case FLOAT -> Double.toString(finite(value.unpackDouble()));
            case BINARY -> base64(value);
            default -> throw refused("Only dicts with str-like or number-like keys are supported");
        };
    }

    private static String base64(MessageUnpacker value) throws IOException {
        byte[] bytes = value.readPayload(value.unpackBinaryHeader());
        return Base64.getEncoder().encodeToString(bytes);
    }

    private static double finite(double number) {
        if (!Double.isFinite(number)) {
            String name = Double.isNaN(number) ? "nan" : number > 0 ? "inf" : "-inf";
            throw refused(name + " is no JSON");
        }
        return number;
    }
}
