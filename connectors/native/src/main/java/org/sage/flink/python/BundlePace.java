package org.sage.flink.python;

/**
 * When the bundles of a stage end.
 *
 * <p><b>The share of time that bundles cost is bounded.</b> A bundle is {@code
 * python.fn-execution.bundle.time} long; in a task that is never idle it is four times as long as
 * the end of the last one took, so that ends take a fifth of the time at most. 25 bundle times are
 * the most, because an end may have waited for a slow consumer. Not for a stage that takes batches:
 * its ends are its work.
 *
 * <p>A task that waits for records has nothing to catch up with, and longer bundles would only delay
 * them: on a slow machine a call took 160 ms longer instead of 59. A batch after a pause
 * does not wait for others at all: its bundle ends with it. A record's does not: tried at 1, 10 and
 * 50 records a second it won nothing, because the end then waits for the record's own work.
 *
 * <p>The end of a bundle is a round trip to the Python worker while the operator reads no record. It
 * takes 1 to 2 ms in a warm JVM, and some 30 ms in one that has just started on a busy machine. There
 * bundles of 10 ms held one or two records: a job with 600 records to catch up with spent its CPU
 * time on round trips, and gave its first output 43 to 51 s after a killed TaskManager instead of 19
 * to 24 s.
 */
final class BundlePace {

    private static final int ENDS_PER_BUNDLE = 4;
    private static final int LONGEST_IN_BUNDLE_TIMES = 25;

    private final long bundleMs;
    private final boolean takesBatches;

    private long delayMs;
    private long idleAtEndMs;

    BundlePace(long bundleMs, boolean takesBatches) {
        this.bundleMs = bundleMs;
        this.takesBatches = takesBatches;
    }

    /**
     * A bundle has ended; returns by how many milliseconds the next one is longer.
     *
     * @param idleMs how long the task has waited for records since its start
     */
    long ended(long startMs, long nowMs, long idleMs) {
        idleAtEndMs = idleMs;
        if (!takesBatches) {
            delayMs = delay(nowMs - startMs, bundleMs);
        }
        return delayMs;
    }

    /** Those milliseconds again, once, when the task has waited for records since then; else 0. */
    long delayInVain(long idleMs) {
        if (idleMs <= idleAtEndMs) {
            return 0;
        }
        long vain = delayMs;
        delayMs = 0;
        return vain;
    }

    /** Whether a bundle ends with its first element, a batch for which the task has waited. */
    boolean endsAtOnce(long idleMs) {
        return takesBatches && idleMs > idleAtEndMs;
    }

    /** The milliseconds by which a bundle is longer after one whose end took {@code tookMs}. */
    static long delay(long tookMs, long bundleMs) {
        long lengthMs = Math.min(ENDS_PER_BUNDLE * tookMs, LONGEST_IN_BUNDLE_TIMES * bundleMs);
        return Math.max(0, lengthMs - bundleMs);
    }
}
