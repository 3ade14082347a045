package org.sage.flink.time;

import java.util.HashMap;
import java.util.Map;

/**
 * The watermark of one subtask: behind the latest record of the slowest partition that is not idle.
 *
 * <p>A partition is that of the record's origin, {@code topic/partition/offset}; all other records
 * are one partition. The watermark advances in steps of a hundredth of {@code outOfOrderMs}, so that
 * it depends on the records alone and hardly costs anything.
 */
final class PartitionWatermarks {

    private static final int STEPS = 100;

    private final long outOfOrderMs;
    private final long stepMs;
    private final Map<String, Partition> partitions = new HashMap<>();
    private Map<String, Long> restored = Map.of();
    private long watermark = Long.MIN_VALUE;

    PartitionWatermarks(long outOfOrderMs) {
        this.outOfOrderMs = outOfOrderMs;
        stepMs = Math.max(1, outOfOrderMs / STEPS);
    }

    /** Starts again from what {@link #latest} and {@link #current} returned before. */
    void restore(Map<String, Long> latest, long current) {
        restored = latest;
        watermark = current;
    }

    /** Adds a record that arrived at {@code nowMs}. */
    void add(String origin, long timestampMs, long nowMs) {
        Partition partition =
                partitions.computeIfAbsent(partitionOf(origin), name -> newPartition(name));
        partition.latestMs = Math.max(partition.latestMs, timestampMs);
        partition.arrivalMs = nowMs;
        partition.idle = false;
    }

    /** Marks partitions without a record since {@code sinceMs} as idle, and whether all are. */
    boolean allIdle(long sinceMs) {
        boolean all = true;
        for (Partition partition : partitions.values()) {
            partition.idle = partition.arrivalMs <= sinceMs;
            all &= partition.idle;
        }
        return all;
    }

    /** Advances the watermark to that of the partitions that are not idle; false if it stays. */
    boolean advance() {
        long slowest = Long.MAX_VALUE;
        for (Partition partition : partitions.values()) {
            if (!partition.idle) {
                slowest = Math.min(slowest, partition.latestMs);
            }
        }
        long next = slowest - outOfOrderMs - 1;
        boolean isFirst = watermark == Long.MIN_VALUE;
        boolean advances = slowest != Long.MAX_VALUE && (isFirst || next - watermark >= stepMs);
        if (advances) {
            watermark = next;
        }
        return advances;
    }

    /** The watermark; the smallest number before the first record. */
    long current() {
        return watermark;
    }

    /** The time of each partition's latest record. */
    Map<String, Long> latest() {
        Map<String, Long> found = new HashMap<>(restored);
        partitions.forEach((name, partition) -> found.put(name, partition.latestMs));
        return found;
    }

    private Partition newPartition(String name) {
        Partition partition = new Partition();
        partition.latestMs = restored.getOrDefault(name, Long.MIN_VALUE);
        return partition;
    }

    private static String partitionOf(String origin) {
        int offset = digitsFrom(origin, origin.length());
        int partition = digitsFrom(origin, offset - 1);
        return offset > 0 && partition > 1 ? origin.substring(0, offset - 1) : "";
    }

    /** Where the digits that end at {@code end} begin; 0 where there are none behind a slash. */
    private static int digitsFrom(String text, int end) {
        int from = end;
        while (from > 0 && text.charAt(from - 1) >= '0' && text.charAt(from - 1) <= '9') {
            from--;
        }
        return from < end && from > 0 && text.charAt(from - 1) == '/' ? from : 0;
    }

    private static final class Partition {
        private long latestMs;
        private long arrivalMs;
        private boolean idle;
    }
}
