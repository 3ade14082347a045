package org.sage.flink.batching;

import java.util.Collections;
import java.util.HashMap;
import java.util.Map;

/**
 * The vector dimension of a call: the one in the settings, or else the one that most of the pool's
 * vectors so far have had.
 */
final class VectorDimension {

    private final int configured;
    private final Map<Integer, Long> counts = new HashMap<>();

    /**
     * @param configured 0 when unknown
     */
    VectorDimension(int configured) {
        this.configured = configured;
    }

    /** Replaces the slots of another dimension by failures, in place. */
    void check(EmbeddingCodec.Slot[] slots) {
        for (EmbeddingCodec.Slot slot : slots) {
            if (slot.reason().isEmpty()) {
                counts.merge(slot.dim(), 1L, Long::sum);
            }
        }
        if (counts.isEmpty() || (configured == 0 && counts.size() == 1)) {
            return;
        }
        int expected =
                configured > 0
                        ? configured
                        : Collections.max(counts.entrySet(), Map.Entry.comparingByValue()).getKey();
        for (int i = 0; i < slots.length; i++) {
            if (slots[i].reason().isEmpty() && slots[i].dim() != expected) {
                int dim = slots[i].dim();
                String reason = "the embedding has dimension " + dim + ", not " + expected;
                slots[i] = EmbeddingCodec.Slot.failure(reason);
            }
        }
    }
}
