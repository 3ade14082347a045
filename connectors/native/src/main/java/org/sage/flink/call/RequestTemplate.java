package org.sage.flink.call;

import java.io.ByteArrayOutputStream;
import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.msgpack.value.ValueType;
import org.sage.flink.connector.JsonEncoder;
import org.sage.flink.wire.PackedReader;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RequiredField;

/**
 * The parts of a request, in order: literals, and fields of the record. The Python twin is {@code
 * sage_flink/common/request_templates.py}, and the words of a refusal are the same.
 */
record RequestTemplate(List<Part> parts) implements Serializable {

    /**
     * A part of a request.
     *
     * @param kind {@code literal}; {@code list}: the JSON of a list that is not empty; {@code
     *     string}: a text escaped as within a JSON string; {@code text}: one that is not blank, as
     *     it is
     * @param text the literal, or the field's name
     * @param shown the name in a message
     */
    record Part(String kind, String text, String shown) implements Serializable {}

    /** What Python's {@code str.strip} removes. */
    private static final String BLANKS = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a"
            + "\\u2028\\u2029\\u202f\\u205f\\u3000]*";

    static RequestTemplate of(JsonNode parts) {
        List<Part> made = new ArrayList<>();
        for (JsonNode part : parts) {
            made.add(new Part(part.get(0).asText(), part.get(1).asText(), part.get(2).asText()));
        }
        return new RequestTemplate(made);
    }

    /**
     * The request of the record in which {@code found} was found.
     *
     * @throws IllegalArgumentException a field is missing, of another kind, or empty
     */
    byte[] render(byte[] record, RecordFields.Found found) {
        ByteArrayOutputStream body = new ByteArrayOutputStream(256);
        for (Part part : parts) {
            body.writeBytes(
                    part.kind.equals("literal")
                            ? part.text.getBytes(StandardCharsets.UTF_8)
                            : field(record, found, part));
        }
        return body.toByteArray();
    }

    private static byte[] field(byte[] record, RecordFields.Found found, Part part) {
        PackedReader reader = RequiredField.find(record, found, part.text, part.shown);
        int from = reader.position();
        boolean isList = part.kind.equals("list");
        ValueType type = reader.type();
        if (type != (isList ? ValueType.ARRAY : ValueType.STRING)) {
            throw RequiredField.other(part.shown, isList ? "a list" : "text", type);
        }
        if (isList ? reader.arrayHeader() == 0 : isBlank(reader, part)) {
            throw new IllegalArgumentException("field " + part.shown + " is empty");
        }
        reader = RequiredField.at(record, from);
        if (part.kind.equals("text")) {
            return reader.bytes();
        }
        reader.skip();
        byte[] json = JsonEncoder.encode(record, from, reader.position());
        return isList ? json : Arrays.copyOfRange(json, 1, json.length - 1);
    }

    private static boolean isBlank(PackedReader reader, Part part) {
        return part.kind.equals("text") && reader.string().matches(BLANKS);
    }
}
