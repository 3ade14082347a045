package org.sage.flink;

import java.net.http.HttpResponse;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * One request body, asked until it is answered, refused for good, or out of attempts or time. Tells
 * its end exactly once and never throws. Lives on the pool's timer thread: no locks.
 */
final class PoolRequest {

    private final Pool pool;
    private final byte[] body;
    private final String requestId;
    private final long deadlineNs;
    private final Consumer<Answer> then;

    private int attempts;
    private int turn;
    private String lastReason = "";
    private boolean ended;
    private CompletableFuture<?> sent;
    private Future<?> deadline;
    private Future<?> pause;

    PoolRequest(
            Pool pool, byte[] body, String requestId, long deadlineNs, Consumer<Answer> then) {
        this.pool = pool;
        this.body = body;
        this.requestId = requestId;
        this.deadlineNs = deadlineNs;
        this.then = then;
    }

    void start() {
        turn = pool.nextTurn();
        deadline = pool.after(deadlineNs - System.nanoTime(), TimeUnit.NANOSECONDS, this::expire);
        attempt();
    }

    int attempts() {
        return attempts;
    }

    /** Why the last attempt failed, empty where none did. */
    String lastReason() {
        return lastReason;
    }

    private void attempt() {
        String url = pool.http().url(turn + attempts);
        attempts++;
        pool.metrics().attempts().inc();
        if (attempts > 1) {
            pool.metrics().retries().inc();
        }
        try {
            CompletableFuture<HttpResponse<Optional<byte[]>>> now =
                    pool.http().post(url, body, requestId);
            sent = now;
            now.whenComplete(
                    (response, error) -> pool.run(() -> settle(reply(url, response, error))));
        } catch (RuntimeException e) {
            end(Answer.failed(0, attempts, "the request cannot be sent: " + e.getMessage()));
        }
    }

    private static Reply reply(
            String url, HttpResponse<Optional<byte[]>> response, Throwable error) {
        if (error == null) {
            return Reply.of(response, Http.BYTES_MAX);
        }
        boolean wrapped = error instanceof CompletionException && error.getCause() != null;
        return Reply.noAnswer(url, wrapped ? error.getCause() : error);
    }

    private void settle(Reply reply) {
        if (ended) {
            return;
        }
        if (reply.isOk()) {
            end(Answer.ok(reply.status(), attempts, reply.body()));
            return;
        }
        lastReason = reply.reason();
        long delayMs =
                Backoff.delayMs(
                        attempts, reply.retryAfterMs(), ThreadLocalRandom.current().nextDouble());
        boolean inTime =
                System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(delayMs) - deadlineNs < 0;
        // With no time left for another attempt, the answer at hand says more than a timeout would.
        if (reply.mayPass() && attempts < pool.config().attemptsMax() && inTime) {
            pause = pool.after(delayMs, TimeUnit.MILLISECONDS, this::attempt);
        } else {
            end(new Answer(reply.status(), attempts, reply.reason(), reply.body()));
        }
    }

    private void expire() {
        end(pool.outOfTime(attempts, lastReason));
    }

    private void end(Answer answer) {
        if (ended) {
            return;
        }
        ended = true;
        deadline.cancel(false);
        if (pause != null) {
            pause.cancel(false);
        }
        if (sent != null) {
            sent.cancel(true); // without effect on an exchange that is complete
        }
        then.accept(answer);
    }
}
