package org.sage.flink.pool;

/**
 * The delay before the next attempt: exponential with full jitter, so that callers rejected at the
 * same moment do not retry at the same moment, and never shorter than Retry-After.
 *
 * <p>Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
public final class Backoff {

    private static final long FIRST_MS = 100;
    private static final long MAX_MS = 5_000;

    private Backoff() {}

    /**
     * @param attempts attempts made so far, at least 1
     * @param retryAfterMs 0 without a Retry-After header
     * @param random in [0, 1)
     */
    public static long delayMs(int attempts, long retryAfterMs, double random) {
        long ceiling = Math.min(MAX_MS, FIRST_MS << Math.min(attempts - 1, 10));
        return retryAfterMs + (long) (random * ceiling);
    }
}
