package org.sage.flink.batching;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.sage.flink.pool.PoolConfig;

/**
 * Texts waiting for a batch, in one buffer per tenant and priority, because a request to the pool
 * has one of each. Of the buffers that are due, the one with the oldest text is next, whatever its
 * priority: the order of requests is the pool's decision, and every buffer must reach the pool.
 */
final class TenantBuffers {

    static final long NEVER = Long.MIN_VALUE;

    private final PoolConfig config;
    private final AtomicInteger queued;
    private final long lingerNs;
    private final Map<Key, Buffer> buffers = new LinkedHashMap<>();

    private record Key(String tenant, String priority) {
        static Key of(PendingText text) {
            return new Key(text.tenant(), text.priority());
        }
    }

    private static final class Buffer {
        final Deque<PendingText> texts = new ArrayDeque<>();
        long tokens;

        void add(PendingText text) {
            texts.add(text);
            tokens += text.tokens();
        }

        boolean remove(PendingText text) {
            boolean found = texts.remove(text);
            tokens -= found ? text.tokens() : 0;
            return found;
        }

        long oldestNs() {
            return texts.peek().arrivedNs();
        }
    }

    TenantBuffers(PoolConfig config, AtomicInteger queued) {
        this.config = config;
        this.queued = queued;
        this.lingerNs = TimeUnit.MILLISECONDS.toNanos(config.lingerMs());
    }

    void add(PendingText text) {
        buffers.computeIfAbsent(Key.of(text), key -> new Buffer()).add(text);
        queued.incrementAndGet();
    }

    /** Removes the text if it is still buffered. */
    void remove(PendingText text) {
        Key key = Key.of(text);
        Buffer buffer = buffers.get(key);
        if (buffer != null) {
            remove(key, buffer, text);
        }
    }

    /** The texts of the next batch; empty when no buffer is due. */
    List<PendingText> take(long nowNs) {
        Map.Entry<Key, Buffer> next = null;
        for (Map.Entry<Key, Buffer> entry : buffers.entrySet()) {
            if (isDue(entry.getValue(), nowNs)
                    && (next == null || isOlder(entry.getValue(), next.getValue()))) {
                next = entry;
            }
        }
        return next == null ? List.of() : take(next.getKey(), next.getValue());
    }

    /** The time at which the next buffer is due by age; {@link #NEVER} when all are empty. */
    long nextDueNs() {
        Buffer oldest = null;
        for (Buffer buffer : buffers.values()) {
            oldest = oldest == null || isOlder(buffer, oldest) ? buffer : oldest;
        }
        return oldest == null ? NEVER : oldest.oldestNs() + lingerNs;
    }

    private List<PendingText> take(Key key, Buffer buffer) {
        List<PendingText> texts =
                new ArrayList<>(Math.min(config.itemsMax(), buffer.texts.size()));
        long tokens = 0;
        while (!buffer.texts.isEmpty() && texts.size() < config.itemsMax()) {
            PendingText next = buffer.texts.peek();
            tokens += next.tokens();
            if (tokens > config.tokensMax() && !texts.isEmpty()) {
                break;
            }
            texts.add(next);
            remove(key, buffer, next);
        }
        return texts;
    }

    private void remove(Key key, Buffer buffer, PendingText text) {
        if (buffer.remove(text)) {
            queued.decrementAndGet();
            if (buffer.texts.isEmpty()) {
                buffers.remove(key);
            }
        }
    }

    private boolean isDue(Buffer buffer, long nowNs) {
        return buffer.texts.size() >= config.itemsMax()
                || buffer.tokens >= config.tokensMax()
                || nowNs - buffer.oldestNs() >= lingerNs;
    }

    private static boolean isOlder(Buffer buffer, Buffer other) {
        return buffer.oldestNs() - other.oldestNs() < 0;
    }
}
