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
 * Texts that wait to be gathered, apart by tenant and priority: the pool is told one of each for a
 * request. Lanes that are due take turns by the age of their oldest text, whatever its priority:
 * who goes first is the pool's decision, and here nobody is kept from asking.
 */
final class TenantBuffers {

    static final long NEVER = Long.MIN_VALUE;

    private final PoolConfig config;
    private final AtomicInteger queued;
    private final long lingerNs;
    private final Map<Key, Lane> lanes = new LinkedHashMap<>();

    private record Key(String tenant, String priority) {
        static Key of(PendingText text) {
            return new Key(text.tenant(), text.priority());
        }
    }

    private static final class Lane {
        final Deque<PendingText> texts = new ArrayDeque<>();
        long tokens;
    }

    TenantBuffers(PoolConfig config, AtomicInteger queued) {
        this.config = config;
        this.queued = queued;
        this.lingerNs = TimeUnit.MILLISECONDS.toNanos(config.lingerMs());
    }

    void add(PendingText text) {
        Lane lane = lanes.computeIfAbsent(Key.of(text), key -> new Lane());
        lane.texts.add(text);
        lane.tokens += text.tokens();
        queued.incrementAndGet();
    }

    /** Takes it out, where it still waits. */
    void remove(PendingText text) {
        Lane lane = lanes.get(Key.of(text));
        if (lane != null && lane.texts.remove(text)) {
            taken(Key.of(text), lane, text);
        }
    }

    /** The texts of the next request, none when no lane is due. */
    List<PendingText> take(long nowNs) {
        Map.Entry<Key, Lane> next = null;
        for (Map.Entry<Key, Lane> entry : lanes.entrySet()) {
            if (isDue(entry.getValue(), nowNs)
                    && (next == null || isOlder(entry.getValue(), next.getValue()))) {
                next = entry;
            }
        }
        return next == null ? List.of() : take(next.getKey(), next.getValue());
    }

    /** When the next lane is due by its age, {@link #NEVER} when nothing waits. */
    long nextDueNs() {
        Lane oldest = null;
        for (Lane lane : lanes.values()) {
            oldest = oldest == null || isOlder(lane, oldest) ? lane : oldest;
        }
        return oldest == null ? NEVER : oldest.texts.peek().arrivedNs + lingerNs;
    }

    private List<PendingText> take(Key key, Lane lane) {
        List<PendingText> texts = new ArrayList<>(Math.min(config.itemsMax(), lane.texts.size()));
        long tokens = 0;
        while (!lane.texts.isEmpty() && texts.size() < config.itemsMax()) {
            PendingText next = lane.texts.peek();
            tokens += next.tokens();
            if (tokens > config.tokensMax() && !texts.isEmpty()) {
                break;
            }
            texts.add(lane.texts.poll());
            taken(key, lane, next);
        }
        return texts;
    }

    private void taken(Key key, Lane lane, PendingText text) {
        lane.tokens -= text.tokens();
        queued.decrementAndGet();
        if (lane.texts.isEmpty()) {
            lanes.remove(key);
        }
    }

    private boolean isDue(Lane lane, long nowNs) {
        return lane.texts.size() >= config.itemsMax()
                || lane.tokens >= config.tokensMax()
                || nowNs - lane.texts.peek().arrivedNs >= lingerNs;
    }

    private static boolean isOlder(Lane lane, Lane other) {
        return lane.texts.peek().arrivedNs - other.texts.peek().arrivedNs < 0;
    }
}
