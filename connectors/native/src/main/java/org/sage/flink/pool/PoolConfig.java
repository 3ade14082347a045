package org.sage.flink.pool;

import java.io.IOException;
import java.io.Serializable;
import java.net.URI;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * Settings of a pool call, validated.
 *
 * @param urls endpoints without a path, used round-robin
 * @param mode {@code post} (the body is the request) or {@code embed} (the body is a text; texts
 *     are batched into requests)
 * @param capacity records in flight in a subtask
 * @param timeoutMs total budget of a record, queueing and retries included
 * @param attemptsMax HTTP requests for one request body, not counting those without a connection
 * @param itemsMax texts in an embedding request
 * @param tokensMax their tokens, estimated at four bytes each; a longer text is sent alone
 * @param lingerMs how long the oldest text waits for others
 * @param requestsMax embedding requests in flight in a subtask, not counting slow ones; by default
 *     what the capacity fills, at least 4
 * @param slackMs a record without a deadline of its own gets its arrival plus this as the deadline
 *     in the request's header; by default the timeout
 * @param dim vector dimension, 0 when unknown
 * @param answerBytesMax limit on one HTTP response
 * @param key reference to the API key, {@code env:NAME} or {@code file:/PATH}, or empty
 * @param ca file of the authorities that may have signed an https endpoint's certificate; empty:
 *     those of the JVM
 * @param keyEnv environment variable of the API key where {@code key} is empty, or empty
 * @param keyFile file of the key relative to {@code $SAGE_HOME}, used when the variable is not set
 * @param merging null where requests are not merged
 */
public record PoolConfig(
        String name,
        List<String> urls,
        String path,
        String mode,
        String model,
        int capacity,
        int timeoutMs,
        int attemptsMax,
        boolean ordered,
        int itemsMax,
        int tokensMax,
        int lingerMs,
        int requestsMax,
        int slackMs,
        int dim,
        int answerBytesMax,
        String key,
        String ca,
        String keyEnv,
        String keyFile,
        MergingConfig merging)
        implements Serializable {

    private static final Set<String> KEYS =
            Set.of(
                    "name", "urls", "path", "mode", "model", "capacity", "timeout_ms",
                    "attempts_max", "ordered", "items_max", "tokens_max", "linger_ms",
                    "requests_max", "slack_ms", "dim", "answer_bytes_max", "key", "ca", "key_env",
                    "key_file", "merging");

    private static final int REQUESTS_MIN = 4;

    /**
     * The settings in this JSON object.
     *
     * @throws IllegalArgumentException on an invalid setting, naming step, setting and requirement
     */
    public static PoolConfig of(String json) {
        JsonNode node = parse(json);
        String name = node.path("name").asText("");
        checkKeys(name, node);
        int capacity = limit(name, node, "capacity", 64, 1);
        int timeoutMs = limit(name, node, "timeout_ms", 10_000, 1);
        int itemsMax = limit(name, node, "items_max", 32, 1);
        int fill = Math.max(REQUESTS_MIN, (capacity + itemsMax - 1) / itemsMax);
        PoolConfig config =
                new PoolConfig(
                        name,
                        urls(name, node),
                        node.path("path").asText("/v1/chat/completions"),
                        node.path("mode").asText("post"),
                        node.path("model").asText(""),
                        capacity,
                        timeoutMs,
                        limit(name, node, "attempts_max", 4, 1),
                        node.path("ordered").asBoolean(false),
                        itemsMax,
                        limit(name, node, "tokens_max", 16_384, 1),
                        limit(name, node, "linger_ms", 5, 0),
                        limit(name, node, "requests_max", fill, 1),
                        limit(name, node, "slack_ms", timeoutMs, 1),
                        limit(name, node, "dim", 0, 0),
                        limit(name, node, "answer_bytes_max", 32 << 20, 1),
                        node.path("key").asText(""),
                        node.path("ca").asText(""),
                        node.path("key_env").asText(""),
                        node.path("key_file").asText(""),
                        MergingConfig.of(node.path("merging")));
        config.validate();
        return config;
    }

    public boolean isEmbed() {
        return mode.equals("embed");
    }

    private void validate() {
        require(!name.isEmpty(), "name is required");
        require(isEmbed() || mode.equals("post"), "mode must be post or embed, got '" + mode + "'");
        require(!isEmbed() || !model.isEmpty(), "mode embed needs a model");
        require(path.startsWith("/"), "path must begin with '/', got '" + path + "'");
    }

    private void require(boolean condition, String message) {
        if (!condition) {
            throw invalid(name, message);
        }
    }

    private static JsonNode parse(String json) {
        try {
            return new ObjectMapper().readTree(json);
        } catch (IOException e) {
            throw new IllegalArgumentException("a pool call's settings are not JSON: " + json, e);
        }
    }

    private static void checkKeys(String name, JsonNode node) {
        for (Iterator<String> keys = node.fieldNames(); keys.hasNext(); ) {
            String key = keys.next();
            if (!KEYS.contains(key)) {
                List<String> known = KEYS.stream().sorted().toList();
                throw invalid(name, "unknown setting '" + key + "'; known: " + known);
            }
        }
    }

    private static List<String> urls(String name, JsonNode node) {
        ArrayList<String> urls = new ArrayList<>();
        for (JsonNode url : node.path("urls")) {
            String scheme = String.valueOf(URI.create(url.asText()).getScheme());
            if (!scheme.equals("http") && !scheme.equals("https")) {
                throw invalid(name, "urls must begin with http:// or https://, got " + url);
            }
            urls.add(url.asText().replaceAll("/+$", ""));
        }
        if (urls.isEmpty()) {
            throw invalid(name, "urls needs at least one url");
        }
        return urls;
    }

    private static int limit(String name, JsonNode node, String key, int byDefault, int min) {
        JsonNode value = node.path(key);
        if (value.isMissingNode()) {
            return byDefault;
        }
        if (!value.canConvertToInt() || value.asInt() < min) {
            throw invalid(name, key + " must be at least " + min + ", got " + value);
        }
        return value.asInt();
    }

    private static IllegalArgumentException invalid(String name, String message) {
        return new IllegalArgumentException("step '" + name + "': " + message);
    }
}
