package org.sage.flink.batching;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Base64;
import java.util.List;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ArrayNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.sage.flink.pool.ResponseSummary;
import org.sage.flink.wire.CallResult;

/**
 * Encoder and decoder for the bodies of {@code POST /v1/embeddings} (OpenAI API reference).
 *
 * <p>Vectors are requested as base64 of little-endian float32, a quarter of the size of decimal
 * text. The response of an endpoint that ignores {@code encoding_format} and returns numbers is
 * decoded as well.
 */
final class EmbeddingCodec {

    private static final ObjectMapper JSON = new ObjectMapper();

    private EmbeddingCodec() {}

    /** The vector of one text, little-endian float32; or the reason for its absence. */
    record Slot(byte[] vector, String reason) {
        int dim() {
            return vector.length / Float.BYTES;
        }

        static Slot failure(String reason) {
            return new Slot(CallResult.NO_BODY, reason);
        }
    }

    /**
     * A decoded response.
     *
     * @param reason why the whole response is unusable; empty when some slots may be usable
     * @param slots one for each text, in the order of the request
     * @param tokensIn {@code usage.prompt_tokens}, 0 when absent
     */
    record Response(String reason, Slot[] slots, long tokensIn) {
        static Response unusable(String reason) {
            return new Response(reason, new Slot[0], 0);
        }
    }

    /** The request for these texts, in order. */
    static byte[] encodeRequest(String model, List<String> texts) {
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
     * The response with one slot for each text, placed by the response's {@code index}. A defect of
     * one vector (missing, duplicate, not finite) fails its own slot only. The whole response is
     * unusable when it is not a list of embeddings, has an index out of range, or has too few
     * embeddings with gapless indexes: in that last case no index can be trusted.
     */
    static Response decodeResponse(byte[] body, int textCount) {
        JsonNode response;
        try {
            response = JSON.readTree(body);
        } catch (IOException e) {
            return Response.unusable("the answer is not JSON, or not all of it");
        }
        JsonNode error = response.path("error");
        if (!error.isMissingNode() && !error.isNull()) {
            return Response.unusable(ResponseSummary.errorReason(error));
        }
        JsonNode data = response.path("data");
        if (!data.isArray()) {
            return Response.unusable("the answer has no list of embeddings");
        }
        Slot[] slots = new Slot[textCount];
        String defect = place(data, slots);
        if (!defect.isEmpty()) {
            return Response.unusable(defect);
        }
        failMissing(slots, data.size());
        return new Response("", slots, response.path("usage").path("prompt_tokens").asLong(0));
    }

    /** Fills the slots; returns why the response is unusable, or an empty string. */
    private static String place(JsonNode data, Slot[] slots) {
        int last = -1;
        for (JsonNode item : data) {
            int index = item.path("index").asInt(-1);
            if (index < 0 || index >= slots.length) {
                return "the answer has an embedding of index "
                        + item.path("index")
                        + ", asked were "
                        + slots.length
                        + " texts";
            }
            last = Math.max(last, index);
            slots[index] =
                    slots[index] == null
                            ? slot(item.path("embedding"))
                            : Slot.failure("the answer has two embeddings of this text");
        }
        boolean gapless = data.size() == last + 1;
        if (data.size() < slots.length && gapless && slots.length > 1) {
            String expected = ", asked were " + slots.length + " texts";
            return "the answer has " + data.size() + " embeddings" + expected;
        }
        return "";
    }

    private static void failMissing(Slot[] slots, int got) {
        for (int i = 0; i < slots.length; i++) {
            if (slots[i] == null) {
                slots[i] =
                        Slot.failure(
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
            return Slot.failure("the embedding is not base64");
        }
        if (vector.length == 0 || vector.length % Float.BYTES != 0) {
            return Slot.failure(
                    "the embedding has " + vector.length + " bytes, not whole float32s");
        }
        ByteBuffer numbers = ByteBuffer.wrap(vector).order(ByteOrder.LITTLE_ENDIAN);
        while (numbers.hasRemaining()) {
            if (!Float.isFinite(numbers.getFloat())) {
                return Slot.failure("the embedding has a number that is not finite");
            }
        }
        return new Slot(vector, "");
    }

    private static byte[] floats(JsonNode numbers) {
        ByteBuffer vector =
                ByteBuffer.allocate(numbers.size() * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        for (JsonNode number : numbers) {
            // A JSON writer encodes NaN as null.
            vector.putFloat(number.isNumber() ? number.floatValue() : Float.NaN);
        }
        return vector.array();
    }
}
