package org.sage.flink.batching;

import java.util.Collections;
import java.util.HashMap;
import java.util.Map;

/**
 * How many numbers a vector of this call has: as the settings say, else as most of the pool's
 * vectors so far had.
 */
final class VectorDimension {

    private final int known;
    private final Map<Integer, Long> seen = new HashMap<>();

    /**
     * @param known 0 for not known
     */
    VectorDimension(int known) {
        this.known = known;
    }

    /** The same slots, those of another dimension failed. */
    void check(EmbeddingCodec.Slot[] slots) {
        for (EmbeddingCodec.Slot slot : slots) {
            if (slot.reason().isEmpty()) {
                seen.merge(slot.dim(), 1L, Long::sum);
            }
        }
        if (seen.isEmpty() || (known == 0 && seen.size() == 1)) {
            return;
        }
        int right =
                known > 0
                        ? known
                        : Collections.max(seen.entrySet(), Map.Entry.comparingByValue()).getKey();
        for (int i = 0; i < slots.length; i++) {
            if (slots[i].reason().isEmpty() && slots[i].dim() != right) {
                String reason = "the embedding has dimension " + slots[i].dim() + ", not " + right;
                slots[i] = EmbeddingCodec.Slot.failed(reason);
            }
        }
    }
}
