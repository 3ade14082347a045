package org.sage.flink.pool;

import java.io.Serializable;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

/**
 * Settings of a call that merges near-equal requests, checked by {@code Merging} in Python.
 *
 * @param threshold the least cosine similarity of two requests that share an answer
 * @param withinMs how long after a request was sent its answer is shared
 * @param answersMax answers kept in a subtask
 */
public record MergingConfig(double threshold, long withinMs, int answersMax)
        implements Serializable {

    /** The settings in this object; null where there is none. */
    static MergingConfig of(JsonNode node) {
        return node.isObject()
                ? new MergingConfig(
                        node.get("threshold").asDouble(),
                        node.get("within_ms").asLong(),
                        node.get("answers_max").asInt())
                : null;
    }
}
