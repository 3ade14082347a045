package org.sage.flink;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ArrayNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

/**
 * The bodies of {@code POST /v1/embeddings}, as the OpenAI API reference has them.
 *
 * <p>Vectors travel as base64 of little-endian float32, a quarter of the size of decimal text; an
 * endpoint that ignores {@code encoding_format} and answers with numbers is read as well.
 */
final class Vectors {

    private static final ObjectMapper JSON = new ObjectMapper();

    private Vectors() {}

    /** The vector of one text, little-endian float32; or why there is none. */
    record Slot(byte[] vector, String reason) {
        static Slot failed(String reason) {
            return new Slot(Answer.NOTHING, reason);
        }
    }

    /** The request for these texts, in order. */
    static byte[] request(String model, List<String> texts) {
        ObjectNode request = JSON.createObjectNode().put("model", model);
        ArrayNode input = request.putArray("input");
        texts.forEach(input::add);
        request.put("encoding_format", "base64");
        try {
            return JSON.writeValueAsBytes(request);
        } catch (IOException e) {
            throw new IllegalStateException(e); // a tree of strings is always JSON
        }
    }

    /**
     * One slot a text, placed by the response's {@code index}. What is wrong with one vector (none,
     * two, another dimension than most, a number that is not finite) fails its slot only; an answer
     * that is no list of embeddings, or names an index that was not asked, fails all: nothing in it
     * can be trusted to stand where it says.
     */
    static Slot[] read(byte[] response, int asked) {
        Slot[] slots = new Slot[asked];
        try {
            JsonNode data = JSON.readTree(response).path("data");
            if (!data.isArray()) {
                return all(asked, "the answer has no list of embeddings");
            }
            for (JsonNode item : data) {
                int index = item.path("index").asInt(-1);
                if (index < 0 || index >= asked) {
                    return all(
                            asked,
                            "the answer has an embedding of index "
                                    + item.path("index")
                                    + ", asked were "
                                    + asked
                                    + " texts");
                }
                slots[index] =
                        slots[index] == null
                                ? slot(item.path("embedding"))
                                : Slot.failed("the answer has two embeddings of this text");
            }
            fillMissing(slots, data.size());
        } catch (IOException e) {
            return all(asked, "the answer is not JSON");
        }
        checkDimensions(slots);
        return slots;
    }

    private static Slot[] all(int asked, String reason) {
        Slot[] slots = new Slot[asked];
        Arrays.fill(slots, Slot.failed(reason));
        return slots;
    }

    private static void fillMissing(Slot[] slots, int got) {
        for (int i = 0; i < slots.length; i++) {
            if (slots[i] == null) {
                slots[i] =
                        Slot.failed(
                                "the answer has no embedding of this text: asked were "
                                        + slots.length
                                        + ", got "
                                        + got);
            }
        }
    }

    private static Slot slot(JsonNode embedding) {
        byte[] vector;
        try {
            vector =
                    embedding.isTextual()
                            ? Base64.getDecoder().decode(embedding.asText())
                            : floats(embedding);
        } catch (IllegalArgumentException e) {
            return Slot.failed("the embedding is not base64");
        }
        if (vector.length == 0 || vector.length % Float.BYTES != 0) {
            return Slot.failed("the embedding has " + vector.length + " bytes, not whole float32s");
        }
        ByteBuffer numbers = ByteBuffer.wrap(vector).order(ByteOrder.LITTLE_ENDIAN);
        while (numbers.hasRemaining()) {
            if (!Float.isFinite(numbers.getFloat())) {
                return Slot.failed("the embedding has a number that is not finite");
            }
        }
        return new Slot(vector, "");
    }

    private static byte[] floats(JsonNode numbers) {
        ByteBuffer vector =
                ByteBuffer.allocate(numbers.size() * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        for (JsonNode number : numbers) {
            // null is how a JSON writer says NaN
            vector.putFloat(number.isNumber() ? number.floatValue() : Float.NaN);
        }
        return vector.array();
    }

    private static void checkDimensions(Slot[] slots) {
        Map<Integer, Integer> votes = new HashMap<>();
        for (Slot slot : slots) {
            if (slot.reason().isEmpty()) {
                votes.merge(slot.vector().length, 1, Integer::sum);
            }
        }
        if (votes.size() < 2) {
            return;
        }
        int most = Collections.max(votes.entrySet(), Map.Entry.comparingByValue()).getKey();
        for (int i = 0; i < slots.length; i++) {
            int length = slots[i].vector().length;
            if (slots[i].reason().isEmpty() && length != most) {
                slots[i] =
                        Slot.failed(
                                "the embedding has dimension "
                                        + length / Float.BYTES
                                        + ", the others of its request have "
                                        + most / Float.BYTES);
            }
        }
    }
}
