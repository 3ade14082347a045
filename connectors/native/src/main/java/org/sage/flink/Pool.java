package org.sage.flink;

import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What a subtask's requests share: the connections, the settings, and one timer thread on which all
 * of their state lives.
 */
final class Pool implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(Pool.class);

    private final PoolConfig config;
    private final Http http;
    private final PoolMetrics metrics;
    private final ScheduledThreadPoolExecutor timer;
    private int turn;

    /**
     * @param firstTurn the endpoint to begin with: another for each subtask, so that they do not
     *     all meet at the first
     */
    Pool(PoolConfig config, Http http, PoolMetrics metrics, int firstTurn, ThreadFactory threads) {
        this.config = config;
        this.http = http;
        this.metrics = metrics;
        this.turn = firstTurn;
        this.timer = new ScheduledThreadPoolExecutor(1, threads);
        // Almost every timer is a deadline that is cancelled: do not keep those until they fire.
        timer.setRemoveOnCancelPolicy(true);
    }

    PoolConfig config() {
        return config;
    }

    Http http() {
        return http;
    }

    PoolMetrics metrics() {
        return metrics;
    }

    int nextTurn() {
        return turn++;
    }

    Answer outOfTime(int attempts, String lastReason) {
        String last = lastReason.isEmpty() ? "" : "; the last attempt: " + lastReason;
        return Answer.failed(0, attempts, "no answer within " + config.timeoutMs() + " ms" + last);
    }

    /** Runs it on the timer thread, soon; drops it after {@link #close}. */
    void run(Runnable what) {
        try {
            timer.execute(logged(what));
        } catch (RejectedExecutionException closed) {
            // Only after close: the record is in the checkpoint and is asked again.
            LOG.debug("dropped after close", closed);
        }
    }

    Future<?> after(long delay, TimeUnit unit, Runnable what) {
        return timer.schedule(logged(what), delay, unit);
    }

    @Override
    public void close() {
        timer.shutdownNow();
        http.close();
    }

    private static Runnable logged(Runnable what) {
        return () -> {
            try {
                what.run();
            } catch (RuntimeException e) {
                // A bug of ours; the operator's own timeout still answers the record.
                LOG.error("a pool call's step failed", e);
            }
        };
    }
}
