package org.sage.flink.pool;

import java.io.IOException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * What stands at the top of an answer's JSON, read without building the rest of it.
 *
 * @param reason why it is no answer, empty when it is one: cut off, not a JSON object, or an error
 *     that came with status 200
 * @param tokensIn {@code usage.prompt_tokens}, 0 where it is not told
 * @param tokensOut {@code usage.completion_tokens}, 0 where it is not told
 */
public record ResponseSummary(String reason, long tokensIn, long tokensOut) {

    private static final ObjectMapper JSON = new ObjectMapper();

    public static ResponseSummary read(byte[] body) {
        try (JsonParser parser = JSON.createParser(body)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                return wrong("the answer is not a JSON object");
            }
            return fields(parser);
        } catch (IOException e) {
            return wrong("the answer is not JSON, or not all of it");
        }
    }

    private static ResponseSummary fields(JsonParser parser) throws IOException {
        String reason = "";
        JsonNode usage = JSON.nullNode();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            String name = parser.currentName();
            JsonToken value = parser.nextToken();
            if (name.equals("error") && value != JsonToken.VALUE_NULL) {
                reason = error(JSON.readTree(parser));
            } else if (name.equals("usage")) {
                usage = JSON.readTree(parser);
            } else {
                parser.skipChildren();
            }
        }
        if (parser.nextToken() != null) {
            return wrong("the answer is more than one JSON object");
        }
        return new ResponseSummary(
                reason,
                usage.path("prompt_tokens").asLong(0),
                usage.path("completion_tokens").asLong(0));
    }

    /** What to say of this {@code error} in an answer of status 200. */
    public static String error(JsonNode error) {
        String words = HttpReply.words(error);
        return "the answer is an error" + (words.isEmpty() ? "" : ": " + words);
    }

    private static ResponseSummary wrong(String reason) {
        return new ResponseSummary(reason, 0, 0);
    }
}
