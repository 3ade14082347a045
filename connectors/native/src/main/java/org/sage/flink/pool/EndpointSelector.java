package org.sage.flink.pool;

import java.util.Arrays;

/**
 * Which address a request goes to: each in turn, save those that failed a moment ago.
 *
 * <p>An address that failed is put aside, at first for half a second, doubled each time to at most
 * ten; when that is over one request tries it, and the others go on elsewhere until that one is
 * answered. Where all are aside, the one that is back the soonest is asked at once: a request has
 * its own back-off.
 */
final class EndpointSelector {

    private static final long FIRST_NS = 500_000_000L;
    private static final long MOST_NS = 10_000_000_000L;

    private final long[] backAtNs;
    private final int[] failures;
    private final boolean[] tried; // aside, and one request is trying it
    private final long[] workedAtNs;
    private int turn;

    /**
     * @param firstTurn the address to begin with: another for each subtask, so that they do not all
     *     meet at the first
     */
    EndpointSelector(int count, int firstTurn, long nowNs) {
        this.backAtNs = new long[count];
        this.failures = new int[count];
        this.tried = new boolean[count];
        this.workedAtNs = new long[count];
        this.turn = firstTurn;
        Arrays.fill(workedAtNs, nowNs);
    }

    /**
     * The number of the next address.
     *
     * @param last the one asked before for the same request, taken again only when no other will
     *     do; -1 for none
     */
    int next(int last, long nowNs) {
        int soonest = -1;
        int first = turn++;
        for (int i = 0; i < failures.length; i++) {
            int url = Math.floorMod(first + i, failures.length);
            if (url == last && failures.length > 1) {
                continue;
            }
            if (failures[url] == 0) {
                return url;
            }
            if (backAtNs[url] - nowNs <= 0) {
                tried[url] = true;
                putAside(url, nowNs, 1); // until this try is answered
                return url;
            }
            if (soonest < 0 || backAtNs[url] - backAtNs[soonest] < 0) {
                soonest = url;
            }
        }
        return last >= 0 && failures[last] == 0 ? last : soonest;
    }

    void worked(int url, long nowNs) {
        failures[url] = 0;
        tried[url] = false;
        workedAtNs[url] = nowNs;
    }

    /** A request of then was given up unanswered: a failure, if nothing else came either. */
    void silent(int url, long sentAtNs, long nowNs, double random) {
        if (workedAtNs[url] - sentAtNs < 0) {
            failed(url, nowNs, random);
        }
    }

    /**
     * @param random in [0, 1)
     */
    void failed(int url, long nowNs, double random) {
        boolean aside = failures[url] > 0 && backAtNs[url] - nowNs > 0;
        if (!aside || tried[url]) { // once for all that fail together
            failures[url]++;
            tried[url] = false;
            putAside(url, nowNs, 0.5 + random / 2);
        }
    }

    int away() {
        int away = 0;
        for (int failed : failures) {
            away += failed > 0 ? 1 : 0;
        }
        return away;
    }

    private void putAside(int url, long nowNs, double share) {
        long fullNs = Math.min(MOST_NS, FIRST_NS << Math.min(Math.max(failures[url] - 1, 0), 5));
        backAtNs[url] = nowNs + (long) (share * fullNs);
    }
}
