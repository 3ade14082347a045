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
 * The settings of a {@link PoolAsyncFunction}, checked.
 *
 * @param urls endpoints without a path, used in turn
 * @param mode {@code post} (the body is the request) or {@code embed} (the body is a text; texts
 *     are gathered into requests)
 * @param capacity records in flight in a subtask
 * @param timeoutMs a record's whole budget, waiting and retries included
 * @param attemptsMax HTTP requests for one request body, save those that found no connection
 * @param itemsMax texts in a gathered request
 * @param tokensMax their tokens in all, four bytes each; a longer text goes alone
 * @param lingerMs how long the oldest text waits for others
 * @param requestsMax gathered requests in flight in a subtask, save those that seem to hang; as
 *     many as the capacity fills and at least 4, where it is not set
 * @param slackMs the deadline that the pool is told of is the record's arrival and this, where the
 *     record has no deadline of its own; the timeout where it is not set
 * @param dim numbers in a vector, 0 where that is not known
 * @param answerBytesMax of one HTTP answer
 * @param keyEnv the environment variable of the API key, empty for none
 * @param keyFile the key's file relative to {@code $SAGE_HOME}, where the variable is not set
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
        String keyEnv,
        String keyFile)
        implements Serializable {

    private static final Set<String> KEYS =
            Set.of(
                    "name", "urls", "path", "mode", "model", "capacity", "timeout_ms",
                    "attempts_max", "ordered", "items_max", "tokens_max", "linger_ms",
                    "requests_max", "slack_ms", "dim", "answer_bytes_max", "key_env", "key_file");

    private static final int REQUESTS_LEAST = 4;

    /**
     * The settings in this JSON object.
     *
     * @throws IllegalArgumentException when they cannot work, naming step, setting and need
     */
    public static PoolConfig of(String json) {
        JsonNode node = parse(json);
        String name = node.path("name").asText("");
        checkKeys(name, node);
        int capacity = limit(name, node, "capacity", 64, 1);
        int timeoutMs = limit(name, node, "timeout_ms", 10_000, 1);
        int itemsMax = limit(name, node, "items_max", 32, 1);
        int fill = Math.max(REQUESTS_LEAST, (capacity + itemsMax - 1) / itemsMax);
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
                        node.path("key_env").asText(""),
                        node.path("key_file").asText(""));
        config.check();
        return config;
    }

    public boolean isEmbed() {
        return mode.equals("embed");
    }

    private void check() {
        need(!name.isEmpty(), "name is required");
        need(isEmbed() || mode.equals("post"), "mode must be post or embed, got '" + mode + "'");
        need(!isEmbed() || !model.isEmpty(), "mode embed needs a model");
        need(path.startsWith("/"), "path must begin with '/', got '" + path + "'");
    }

    private void need(boolean holds, String otherwise) {
        if (!holds) {
            throw wrong(name, otherwise);
        }
    }

    private static JsonNode parse(String json) {
        try {
            return new ObjectMapper().readTree(json);
        } catch (IOException e) {
            throw new IllegalArgumentException("a pool call's settings are no JSON: " + json, e);
        }
    }

    private static void checkKeys(String name, JsonNode node) {
        for (Iterator<String> keys = node.fieldNames(); keys.hasNext(); ) {
            String key = keys.next();
            if (!KEYS.contains(key)) {
                throw wrong(name, "unknown setting '" + key + "'; known: " + sorted(KEYS));
            }
        }
    }

    private static List<String> urls(String name, JsonNode node) {
        ArrayList<String> urls = new ArrayList<>();
        for (JsonNode url : node.path("urls")) {
            String scheme = String.valueOf(URI.create(url.asText()).getScheme());
            if (!scheme.equals("http") && !scheme.equals("https")) {
                throw wrong(name, "urls must begin with http:// or https://, got " + url);
            }
            urls.add(url.asText().replaceAll("/+$", ""));
        }
        if (urls.isEmpty()) {
            throw wrong(name, "urls needs at least one url");
        }
        return urls;
    }

    private static int limit(String name, JsonNode node, String key, int otherwise, int least) {
        JsonNode value = node.path(key);
        if (value.isMissingNode()) {
            return otherwise;
        }
        if (!value.canConvertToInt() || value.asInt() < least) {
            throw wrong(name, key + " must be at least " + least + ", got " + value);
        }
        return value.asInt();
    }

    private static List<String> sorted(Set<String> keys) {
        return keys.stream().sorted().toList();
    }

    private static IllegalArgumentException wrong(String name, String what) {
        return new IllegalArgumentException("step '" + name + "': " + what);
    }
}
