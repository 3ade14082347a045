package org.sage.flink.pool;

import java.util.Arrays;

/**
 * Chooses the endpoint of each request: round-robin over the endpoints without a recent failure.
 *
 * <p>An endpoint that failed is suspended for half a second, doubled with each failure up to ten
 * seconds. After that a single request probes it, and other requests avoid it until the probe has a
 * response. When all endpoints are suspended, the one whose suspension ends first is used
 * immediately, because a request has its own back-off.
 */
final class EndpointSelector {

    private static final long FIRST_NS = 500_000_000L;
    private static final long MAX_NS = 10_000_000_000L;

    private final long[] suspendedUntilNs;
    private final int[] failures;
    private final boolean[] probing; // suspended, with one request under way to try it
    private final long[] lastSuccessNs;
    private int turn;

    /**
     * @param firstTurn the endpoint of the first request: another one for each subtask, so that not
     *     all of them start with the same
     */
    EndpointSelector(int count, int firstTurn, long nowNs) {
        this.suspendedUntilNs = new long[count];
        this.failures = new int[count];
        this.probing = new boolean[count];
        this.lastSuccessNs = new long[count];
        this.turn = firstTurn;
        Arrays.fill(lastSuccessNs, nowNs);
    }

    /**
     * The index of the next endpoint.
     *
     * @param previous the endpoint of the previous attempt of the same request, chosen again only
     *     when no other is usable; -1 for a first attempt
     */
    int next(int previous, long nowNs) {
        int soonest = -1;
        int first = turn++;
        for (int i = 0; i < failures.length; i++) {
            int endpoint = Math.floorMod(first + i, failures.length);
            if (endpoint == previous && failures.length > 1) {
                continue;
            }
            if (failures[endpoint] == 0) {
                return endpoint;
            }
            if (suspendedUntilNs[endpoint] - nowNs <= 0) {
                probing[endpoint] = true;
                suspend(endpoint, nowNs, 1); // until the probe has a response
                return endpoint;
            }
            if (soonest < 0 || suspendedUntilNs[endpoint] - suspendedUntilNs[soonest] < 0) {
                soonest = endpoint;
            }
        }
        return previous >= 0 && failures[previous] == 0 ? previous : soonest;
    }

    void recordSuccess(int endpoint, long nowNs) {
        failures[endpoint] = 0;
        probing[endpoint] = false;
        lastSuccessNs[endpoint] = nowNs;
    }

    /**
     * A request sent at {@code sentAtNs} was given up without a response. It counts as a failure
     * unless the endpoint has answered another request since.
     */
    void recordSilence(int endpoint, long sentAtNs, long nowNs, double random) {
        if (lastSuccessNs[endpoint] - sentAtNs < 0) {
            recordFailure(endpoint, nowNs, random);
        }
    }

    /**
     * @param random in [0, 1)
     */
    void recordFailure(int endpoint, long nowNs, double random) {
        boolean suspended = failures[endpoint] > 0 && suspendedUntilNs[endpoint] - nowNs > 0;
        if (!suspended || probing[endpoint]) { // requests that fail together count once
            failures[endpoint]++;
            probing[endpoint] = false;
            suspend(endpoint, nowNs, 0.5 + random / 2);
        }
    }

    int suspendedCount() {
        int count = 0;
        for (int failed : failures) {
            count += failed > 0 ? 1 : 0;
        }
        return count;
    }

    private void suspend(int endpoint, long nowNs, double share) {
        long fullNs =
                Math.min(MAX_NS, FIRST_NS << Math.min(Math.max(failures[endpoint] - 1, 0), 5));
        suspendedUntilNs[endpoint] = nowNs + (long) (share * fullNs);
    }
}
