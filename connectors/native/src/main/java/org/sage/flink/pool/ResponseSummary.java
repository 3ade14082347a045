package org.sage.flink.pool;

import java.io.IOException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * The top-level error and usage of a response's JSON, read without building the rest of the tree.
 *
 * @param reason why the response is unusable, empty when it is usable: truncated, not a JSON
 *     object, or an error with status 200
 * @param tokensIn {@code usage.prompt_tokens}, 0 when absent
 * @param tokensOut {@code usage.completion_tokens}, 0 when absent
 */
public record ResponseSummary(String reason, long tokensIn, long tokensOut) {

    private static final ObjectMapper JSON = new ObjectMapper();

    public static ResponseSummary read(byte[] body) {
        try (JsonParser parser = JSON.createParser(body)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                return unusable("the answer is not a JSON object");
            }
            return readFields(parser);
        } catch (IOException e) {
            return unusable("the answer is not JSON, or not all of it");
        }
    }

    private static ResponseSummary readFields(JsonParser parser) throws IOException {
        String reason = "";
        JsonNode usage = JSON.nullNode();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            String name = parser.currentName();
            JsonToken value = parser.nextToken();
            if (name.equals("error") && value != JsonToken.VALUE_NULL) {
                reason = errorReason(JSON.readTree(parser));
            } else if (name.equals("usage")) {
                usage = JSON.readTree(parser);
            } else {
                parser.skipChildren();
            }
        }
        if (parser.nextToken() != null) {
            return unusable("the answer is more than one JSON object");
        }
        return new ResponseSummary(
                reason,
                usage.path("prompt_tokens").asLong(0),
                usage.path("completion_tokens").asLong(0));
    }

    /** The failure reason for this {@code error} of a response with status 200. */
    public static String errorReason(JsonNode error) {
        String message = HttpReply.errorMessage(error);
        return "the answer is an error" + (message.isEmpty() ? "" : ": " + message);
    }

    private static ResponseSummary unusable(String reason) {
        return new ResponseSummary(reason, 0, 0);
    }
}
