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
 * The bodies of {@code POST /v1/embeddings}, as the OpenAI API reference has them.
 *
 * <p>Vectors travel as base64 of little-endian float32, a quarter of the size of decimal text; an
 * endpoint that ignores {@code encoding_format} and answers with numbers is read as well.
 */
final class EmbeddingCodec {

    private static final ObjectMapper JSON = new ObjectMapper();

    private EmbeddingCodec() {}

    /** The vector of one text, little-endian float32; or why there is none. */
    record Slot(byte[] vector, String reason) {
        int dim() {
            return vector.length / Float.BYTES;
        }

        static Slot failed(String reason) {
            return new Slot(CallResult.NO_BODY, reason);
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
     * The answer to a request, read.
     *
     * @param reason why nothing in it can be used; empty where some slots can
     * @param slots one a text, in the order asked
     * @param tokensIn {@code usage.prompt_tokens}, 0 where it is not told
     */
    record Response(String reason, Slot[] slots, long tokensIn) {
        static Response unusable(String reason) {
            return new Response(reason, new Slot[0], 0);
        }
    }

    /**
     * The answer with a slot a text, placed by the response's {@code index}. What is wrong with one
     * vector (none, two, a number that is not finite) fails its slot only. Nothing can be used of
     * an answer that is no list of embeddings, names an index that was not asked, or has too few
     * and numbers them without a gap: none of them can be trusted to stand where it says.
     */
    static Response read(byte[] response, int asked) {
        JsonNode page;
        try {
            page = JSON.readTree(response);
        } catch (IOException e) {
            return Response.unusable("the answer is not JSON, or not all of it");
        }
        JsonNode error = page.path("error");
        if (!error.isMissingNode() && !error.isNull()) {
            return Response.unusable(ResponseSummary.error(error));
        }
        JsonNode data = page.path("data");
        if (!data.isArray()) {
            return Response.unusable("the answer has no list of embeddings");
        }
        Slot[] slots = new Slot[asked];
        String wrong = place(data, slots);
        if (!wrong.isEmpty()) {
            return Response.unusable(wrong);
        }
        fillMissing(slots, data.size());
        return new Response("", slots, page.path("usage").path("prompt_tokens").asLong(0));
    }

    /** Fills the slots; says why nothing can be used, or nothing. */
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
                            : Slot.failed("the answer has two embeddings of this text");
        }
        boolean gapless = data.size() == last + 1;
        if (data.size() < slots.length && gapless && slots.length > 1) {
            String asked = ", asked were " + slots.length + " texts";
            return "the answer has " + data.size() + " embeddings" + asked;
        }
        return "";
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
}
