package org.sage.flink.counters;

import java.io.UncheckedIOException;
import java.util.Map;
import org.apache.flink.api.common.accumulators.Accumulator;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * Accumulator with a snapshot of the counters of {@link JobCountersOperator}, as JSON: {@code
 * {"counts": {...}, "opening": {...}}}. A single value rather than an accumulator for each counter,
 * because heartbeats read accumulators on another thread and would mix counters from before and
 * after an update.
 */
public final class CountersAccumulator implements Accumulator<String, String> {

    private static final long serialVersionUID = 1L;
    private static final ObjectMapper JSON = new ObjectMapper();

    private volatile String snapshot = "";

    /** Replaces the snapshot. */
    void publish(Map<String, Long> counts, Map<String, Long> opening) {
        try {
            snapshot = JSON.writeValueAsString(Map.of("counts", counts, "opening", opening));
        } catch (JsonProcessingException e) {
            throw new UncheckedIOException(e); // maps of text and numbers are always JSON
        }
    }

    @Override
    public void add(String value) {
        snapshot = value;
    }

    @Override
    public String getLocalValue() {
        return snapshot;
    }

    @Override
    public void resetLocal() {
        snapshot = "";
    }

    /** Takes the other snapshot if this one is empty: only one subtask ever has one. */
    @Override
    public void merge(Accumulator<String, String> other) {
        if (snapshot.isEmpty()) {
            snapshot = other.getLocalValue();
        }
    }

    @Override
    public CountersAccumulator clone() {
        CountersAccumulator copy = new CountersAccumulator();
        copy.snapshot = snapshot;
        return copy;
    }
}
