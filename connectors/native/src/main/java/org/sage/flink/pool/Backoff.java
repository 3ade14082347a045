package org.sage.flink.pool;

/**
 * How long to wait before the next attempt: exponential with full jitter, so that callers refused
 * together do not come back together, and never sooner than Retry-After asks.
 *
 * <p>Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
public final class Backoff {

    private static final long FIRST_MS = 100;
    private static final long MOST_MS = 5_000;

    private Backoff() {}

    /**
     * @param attempts attempts made so far, at least 1
     * @param retryAfterMs 0 for none
     * @param random in [0, 1)
     */
    public static long delayMs(int attempts, long retryAfterMs, double random) {
        long ceiling = Math.min(MOST_MS, FIRST_MS << Math.min(attempts - 1, 10));
        return retryAfterMs + (long) (random * ceiling);
    }
}
