package org.sage.flink.batching;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.sage.flink.pool.Backoff;
import org.sage.flink.pool.CallExecutor;
import org.sage.flink.pool.HttpReply;
import org.sage.flink.pool.PoolClient;
import org.sage.flink.pool.RetryingRequest;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/**
 * Texts of any records in flight, gathered into embedding requests.
 *
 * <p>Texts of one tenant and priority wait in a lane. A request goes out when a lane has {@code
 * items_max} texts or {@code tokens_max} tokens, or its oldest has waited {@code linger_ms}, and
 * fewer than {@code requests_max} are in flight: while the pool is busy texts go on gathering, so
 * requests fill under load and stay small in a trickle.
 *
 * <p>No text harms the others of its request:
 *
 * <ul>
 *   <li>a request that is refused for its content, or fails again and again in a way that its
 *       content may cause, is halved until the guilty text fails alone; a half has one attempt, a
 *       lone text all of them;
 *   <li>a text without a usable vector in an answer that is good otherwise is asked once more,
 *       alone;
 *   <li>a request that takes long gives up its place among {@code requests_max}; when later ones
 *       are answered meanwhile, or nothing else is asked, its halves are asked beside it, and
 *       whatever answers first counts. While the whole pool stands still nothing is asked twice.
 * </ul>
 */
public final class EmbeddingBatcher implements CallExecutor {

    /** A request is doubted when this share of the time it has left is over, and then again. */
    private static final int DOUBTS = 4;

    private static final long DOUBT_NS_LEAST = 20_000_000L;

    private final PoolClient pool;
    private final TenantBuffers lanes;
    private final VectorDimension dimension;
    private final Deque<EmbeddingBatch> again = new ArrayDeque<>();
    private boolean againFirst;
    private int inFlight;
    private long generation;
    private long answered = -1;
    private Future<?> linger;

    public EmbeddingBatcher(PoolClient pool) {
        this.pool = pool;
        this.lanes = new TenantBuffers(pool.config(), pool.metrics().queued());
        this.dimension = new VectorDimension(pool.config().dim());
    }

    @Override
    public void ask(CallRequest question, long deadlineNs, Consumer<CallResult> then) {
        PendingText text = new PendingText(question, System.nanoTime(), deadlineNs, then);
        text.deadline =
                pool.after(
                        deadlineNs - System.nanoTime(), TimeUnit.NANOSECONDS, () -> expire(text));
        lanes.add(text);
        pump();
    }

    private void expire(PendingText text) {
        lanes.remove(text);
        end(text, pool.outOfTime(text.attempts(), text.lastReason()));
    }

    private void pump() {
        while (inFlight < pool.config().requestsMax()) {
            EmbeddingBatch next = next();
            if (next == null) {
                return;
            }
            send(next);
        }
    }

    /** The next request; null when it is not time for one. In turns from what failed and is new. */
    private EmbeddingBatch next() {
        againFirst = !againFirst;
        EmbeddingBatch next = againFirst ? repeated() : gathered();
        if (next != null) {
            return next;
        }
        return againFirst ? gathered() : repeated();
    }

    private EmbeddingBatch repeated() {
        while (!again.isEmpty()) {
            EmbeddingBatch next = again.poll();
            pool.metrics().queued().addAndGet(-next.texts.size());
            List<PendingText> open = next.open();
            if (!open.isEmpty()) {
                return new EmbeddingBatch(open, next.generation, next.attemptsMax, next.elsewhere);
            }
        }
        return null;
    }

    private EmbeddingBatch gathered() {
        long nowNs = System.nanoTime();
        List<PendingText> texts = lanes.take(nowNs);
        if (!texts.isEmpty()) {
            return new EmbeddingBatch(texts, generation++, pool.config().attemptsMax(), -1);
        }
        long dueNs = lanes.nextDueNs();
        if (dueNs != TenantBuffers.NEVER && (linger == null || linger.isDone())) {
            linger = pool.after(dueNs - nowNs, TimeUnit.NANOSECONDS, this::lingerOver);
        }
        return null;
    }

    private void lingerOver() {
        linger = null; // it runs, so isDone does not say so yet
        pump();
    }

    private void send(EmbeddingBatch batch) {
        inFlight++;
        pool.metrics().gatheredItems().update(batch.texts.size());
        pool.metrics().gatheredTokens().update(batch.tokens());
        RetryingRequest.Spec asked =
                new RetryingRequest.Spec(
                        EmbeddingCodec.request(pool.config().model(), batch.contents()),
                        batch.headers(),
                        batch.lastDeadlineNs(),
                        batch.attemptsMax,
                        batch.elsewhere);
        batch.request =
                new RetryingRequest(pool, asked, batch::read, answer -> settle(batch, answer));
        batch.texts.forEach(text -> text.batches.add(batch));
        doubtLater(batch);
        batch.request.start();
    }

    private void settle(EmbeddingBatch batch, CallResult answer) {
        release(batch);
        for (PendingText text : batch.texts) {
            text.leave(batch);
        }
        if (answer.isOk()) {
            answered = Math.max(answered, batch.generation);
            pool.metrics().tokensIn().inc(batch.page.tokensIn());
            place(batch, answer.status());
        } else if (!batch.halved) {
            fail(batch, answer);
        }
        // Not at once: a request that ends while it starts would come back here within pump().
        pool.run(this::pump);
    }

    private void place(EmbeddingBatch batch, int status) {
        EmbeddingCodec.Slot[] slots = batch.page.slots();
        dimension.check(slots);
        for (int i = 0; i < slots.length; i++) {
            PendingText text = batch.texts.get(i);
            if (slots[i].reason().isEmpty()) {
                end(text, CallResult.ok(status, text.attempts(), slots[i].vector()));
            } else if (batch.texts.size() == 1) {
                end(text, CallResult.failure(0, text.attempts(), slots[i].reason()));
            } else if (!batch.halved) {
                repeat(batch.again(List.of(text), generation++, pool.config().attemptsMax()));
            }
        }
    }

    private void fail(EmbeddingBatch batch, CallResult answer) {
        HttpReply last = batch.request.last();
        if (batch.texts.size() == 1 || !last.mayBeTheContent()) {
            for (PendingText text : batch.open()) {
                end(text, CallResult.failure(answer.status(), text.attempts(), answer.reason()));
            }
        } else if (last.mayPass()) {
            // An engine in trouble is not helped by twice as many requests at once.
            long delayMs = Backoff.delayMs(batch.request.attempts(), last.retryAfterMs(), 0.5);
            pool.after(
                    delayMs,
                    TimeUnit.MILLISECONDS,
                    () -> {
                        halve(batch);
                        pump();
                    });
        } else {
            halve(batch);
        }
    }

    private void halve(EmbeddingBatch batch) {
        List<PendingText> open = batch.open();
        if (open.isEmpty()) {
            return;
        }
        batch.halved = true;
        long both = generation++;
        int middle = (open.size() + 1) / 2;
        List<PendingText> left = open.subList(0, middle);
        List<PendingText> right = open.subList(middle, open.size());
        for (List<PendingText> half : List.of(left, right)) {
            if (!half.isEmpty()) {
                int attemptsMax = half.size() == 1 ? pool.config().attemptsMax() : 1;
                repeat(batch.again(half, both, attemptsMax));
            }
        }
    }

    private void repeat(EmbeddingBatch batch) {
        again.add(batch);
        pool.metrics().queued().addAndGet(batch.texts.size());
    }

    private void doubtLater(EmbeddingBatch batch) {
        long leftNs = batch.lastDeadlineNs() - System.nanoTime();
        if (leftNs / DOUBTS >= DOUBT_NS_LEAST) {
            batch.doubt =
                    pool.after(leftNs / DOUBTS, TimeUnit.NANOSECONDS, () -> doubt(batch));
        }
    }

    private void doubt(EmbeddingBatch batch) {
        batch.doubts++;
        release(batch);
        boolean overtaken = answered >= batch.generation;
        boolean alone = inFlight == 0 && batch.doubts > 1;
        if (batch.open().size() > 1) {
            if (overtaken || alone) {
                halve(batch);
            } else {
                doubtLater(batch);
            }
        }
        pump();
    }

    /** Gives its place among the requests in flight to another. */
    private void release(EmbeddingBatch batch) {
        if (!batch.released) {
            batch.released = true;
            inFlight--;
        }
        batch.doubt.cancel(false);
    }

    private void end(PendingText text, CallResult answer) {
        if (text.ended) {
            return;
        }
        text.ended = true;
        text.deadline.cancel(false);
        for (EmbeddingBatch batch : text.batches) {
            if (batch.open().isEmpty()) {
                batch.request.cancel(); // nobody waits for its answer
                release(batch);
                pool.run(this::pump);
            }
        }
        text.then.accept(answer);
    }
}
