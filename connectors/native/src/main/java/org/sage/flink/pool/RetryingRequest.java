package org.sage.flink.pool;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.sage.flink.wire.CallResult;

/**
 * One request body, asked until it is answered, refused for good, or out of attempts or time. Tells
 * its end exactly once, unless it is cancelled, and never throws. Lives on the pool's loop: no
 * locks.
 *
 * <p>What finds no connection has asked nothing and does not count against the attempts: while the
 * pool is away, for a restart say, calls wait for it as long as they have time, and the stream
 * waits for them.
 */
public final class RetryingRequest {

    public static final String ATTEMPT = "x-sage-attempt";

    private static final int AWAY_STEP_MAX = 4; // 0.8 s at most

    /**
     * What is asked.
     *
     * @param deadlineNs when the time is over, by {@link System#nanoTime}
     * @param attemptsMax requests sent for it while the content may be at fault; the settings'
     *     number where the pool is busy or away
     * @param elsewhere the number of an address that it should not go to first, -1 for none
     */
    public record Spec(
            byte[] body,
            Map<String, String> headers,
            long deadlineNs,
            int attemptsMax,
            int elsewhere) {}

    /** What is wrong with the body of an answer of 2xx; empty when it can be used. */
    public interface Check {
        String apply(byte[] body);
    }

    private static final HttpReply NOTHING_YET =
            new HttpReply(HttpReply.Classification.AWAY, 0, "", 0, CallResult.NO_BODY);

    private final PoolClient pool;
    private final Spec asked;
    private final Check check;
    private final Consumer<CallResult> then;

    private int attempts;
    private int unheard; // those of them that found no connection
    private int url;
    private long sentAtNs;
    private HttpReply last = NOTHING_YET;
    private boolean ended;
    private PoolHttpClient.Exchange sent;
    private Future<?> deadline;
    private Future<?> pause;

    public RetryingRequest(PoolClient pool, Spec asked, Check check, Consumer<CallResult> then) {
        this.pool = pool;
        this.asked = asked;
        this.url = asked.elsewhere();
        this.check = check;
        this.then = then;
    }

    public void start() {
        deadline =
                pool.after(
                        asked.deadlineNs() - System.nanoTime(), TimeUnit.NANOSECONDS, this::expire);
        attempt();
    }

    /** Ends it, its connection too, and tells nothing. */
    public void cancel() {
        if (!ended) {
            stop();
        }
    }

    public int attempts() {
        return attempts;
    }

    /** What the latest attempt came to; its reason is empty where none has ended. */
    public HttpReply last() {
        return last;
    }

    /** The number of the address of the latest attempt. */
    public int url() {
        return url;
    }

    private void attempt() {
        sentAtNs = System.nanoTime();
        url = pool.urls().next(url, sentAtNs);
        attempts++;
        pool.metrics().attempts().inc();
        if (attempts > 1) {
            pool.metrics().retries().inc();
        }
        Map<String, String> headers = new LinkedHashMap<>(asked.headers());
        headers.put(ATTEMPT, Integer.toString(attempts));
        try {
            sent = pool.http().post(url, asked.body(), headers, this::settle);
        } catch (IllegalArgumentException e) {
            end(CallResult.failure(0, attempts, "the request cannot be sent: " + e.getMessage()));
        }
    }

    private void settle(HttpReply reply) {
        if (ended) {
            return;
        }
        sent = null;
        note(reply);
        last = reply;
        if (reply.isOk()) {
            String wrong = check.apply(reply.body());
            if (!wrong.isEmpty()) {
                last = reply.unusable(wrong);
            }
        }
        if (last.mayPass() && hasAttempts()) {
            again();
        } else {
            end(last.answer(attempts));
        }
    }

    private boolean hasAttempts() {
        switch (last.verdict()) {
            case AWAY:
                unheard++;
                return true;
            case BUSY:
                return attempts - unheard < pool.config().attemptsMax();
            default:
                return attempts - unheard < asked.attemptsMax();
        }
    }

    private void note(HttpReply reply) {
        if (reply.isFromNowhere()) {
            double random = ThreadLocalRandom.current().nextDouble();
            pool.urls().failed(url, System.nanoTime(), random);
        } else {
            pool.urls().worked(url, System.nanoTime());
        }
        pool.metrics().urlsAway().set(pool.urls().away());
    }

    private void again() {
        double random = ThreadLocalRandom.current().nextDouble();
        boolean away = last.verdict() == HttpReply.Classification.AWAY;
        // Trying for a connection costs nobody much: be there soon after the pool is.
        int step = away ? Math.min(attempts, AWAY_STEP_MAX) : attempts;
        long delayMs = Backoff.delayMs(step, last.retryAfterMs(), random);
        long leftNs = asked.deadlineNs() - System.nanoTime();
        if (TimeUnit.MILLISECONDS.toNanos(delayMs) >= leftNs) {
            // With no time left for another attempt, the answer at hand says more than a timeout.
            end(last.answer(attempts));
            return;
        }
        pool.metrics().queued().incrementAndGet();
        pause =
                pool.after(
                        delayMs,
                        TimeUnit.MILLISECONDS,
                        () -> {
                            resume();
                            attempt();
                        });
    }

    private void resume() {
        if (pause != null) {
            pause = null;
            pool.metrics().queued().decrementAndGet();
        }
    }

    private void expire() {
        end(pool.outOfTime(attempts, last.reason()));
    }

    private void end(CallResult answer) {
        if (!ended) {
            stop();
            then.accept(answer);
        }
    }

    private void stop() {
        ended = true;
        if (sent != null) {
            double random = ThreadLocalRandom.current().nextDouble();
            pool.urls().silent(url, sentAtNs, System.nanoTime(), random);
            sent.abort();
        }
        deadline.cancel(false);
        if (pause != null) {
            pause.cancel(false);
            resume();
        }
    }
}
