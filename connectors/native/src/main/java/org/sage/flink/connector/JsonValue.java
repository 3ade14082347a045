package org.sage.flink.connector;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;
import org.msgpack.core.MessagePacker;

/**
 * JSON texts as values of wire records. It takes what {@code plain_json.py} takes and makes the same
 * value of it; of a text that one of the two might see in another way it says that it cannot.
 */
final class JsonValue {

    /** As in Python: deeper values are rejected there. */
    private static final int DEPTH_MAX = 100;

    private static final char BYTE_ORDER_MARK = '\uFEFF';
    private static final char REPLACEMENT = '\uFFFD';

    private static final JsonFactory FACTORY = new JsonFactory();

    private JsonValue() {}

    /**
     * Writes the value of the text in {@code json} as MessagePack.
     *
     * @throws IOException it is not JSON in UTF-8, or its value has no form that is surely the same in
     *     Python
     */
    static void pack(byte[] json, MessagePacker packer) throws IOException {
        String text = text(json);
        try (JsonParser parser = FACTORY.createParser(text)) {
            parser.nextToken();
            Object value = value(parser, 0);
            if (parser.nextToken() != null) {
                throw new IOException("there is more than one value");
            }
            pack(value, packer);
        }
    }

    private static String text(byte[] json) throws IOException {
        String text = new String(json, StandardCharsets.UTF_8);
        if (text.indexOf(REPLACEMENT) >= 0) {
            text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(json)).toString();
        }
        return !text.isEmpty() && text.charAt(0) == BYTE_ORDER_MARK ? text.substring(1) : text;
    }

    private static Object value(JsonParser parser, int depth) throws IOException {
        JsonToken token = parser.currentToken();
        if (token == null) {
            throw new IOException("there is no value");
        }
        return switch (token) {
            case VALUE_STRING -> whole(parser.getText());
            case VALUE_NUMBER_INT -> integer(parser);
            case VALUE_NUMBER_FLOAT -> finite(parser.getDoubleValue());
            case VALUE_TRUE, VALUE_FALSE -> token == JsonToken.VALUE_TRUE;
            case VALUE_NULL -> null;
            case START_ARRAY -> array(parser, depth + 1);
            case START_OBJECT -> object(parser, depth + 1);
            default -> throw new IOException("there is no value");
        };
    }

    private static List<Object> array(JsonParser parser, int depth) throws IOException {
        requireDepth(depth);
        List<Object> items = new ArrayList<>();
        while (parser.nextToken() != JsonToken.END_ARRAY) {
            items.add(value(parser, depth));
        }
        return items;
    }

    /** Of a name that occurs twice the last value counts. */
    private static Map<String, Object> object(JsonParser parser, int depth) throws IOException {
        requireDepth(depth);
        Map<String, Object> fields = new LinkedHashMap<>();
        while (parser.nextToken() != JsonToken.END_OBJECT) {
            String name = whole(parser.currentName());
            parser.nextToken();
            fields.put(name, value(parser, depth));
        }
        return fields;
    }

    private static void requireDepth(int depth) throws IOException {
        if (depth > DEPTH_MAX) {
            throw new IOException("it is nested too deeply");
        }
    }

    private static long integer(JsonParser parser) throws IOException {
        if (parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER) {
            throw new IOException("a number has more than 64 bits");
        }
        return parser.getLongValue();
    }

    private static double finite(double number) throws IOException {
        if (!Double.isFinite(number)) {
            throw new IOException("a number is too large");
        }
        return number;
    }

    /** The text, where it has no half of a pair of surrogates. */
    private static String whole(String text) throws IOException {
        for (int i = 0; i < text.length(); i++) {
            if (Character.isSurrogate(text.charAt(i))) {
                boolean isPair =
                        i + 1 < text.length()
                                && Character.isSurrogatePair(text.charAt(i), text.charAt(i + 1));
                if (!isPair) {
                    throw new IOException("a text has half a pair of surrogates");
                }
                i++;
            }
        }
        return text;
    }

    private static void pack(Object value, MessagePacker packer) throws IOException {
        if (value == null) {
            packer.packNil();
        } else if (value instanceof String text) {
            packer.packString(text);
        } else if (value instanceof Long number) {
            packer.packLong(number);
        } else if (value instanceof Double number) {
            packer.packDouble(number);
        } else if (value instanceof Boolean flag) {
            packer.packBoolean(flag);
        } else if (value instanceof List<?> items) {
            packer.packArrayHeader(items.size());
            for (Object item : items) {
                pack(item, packer);
            }
        } else {
            Map<?, ?> fields = (Map<?, ?>) value;
            packer.packMapHeader(fields.size());
            for (Map.Entry<?, ?> field : fields.entrySet()) {
                packer.packString((String) field.getKey());
                pack(field.getValue(), packer);
            }
        }
    }
}
