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
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/**
 * Call executor that batches the texts of records in flight into embedding requests.
 *
 * <p>Texts of one tenant and priority share a buffer. A batch is sent when a buffer has {@code
 * items_max} texts or {@code tokens_max} tokens, or its oldest text has waited {@code linger_ms},
 * and fewer than {@code requests_max} batches hold a slot. While the pool is busy the buffers keep
 * growing, so batches are full under load and small at low rates.
 *
 * <p>Texts of one batch are isolated from each other's failures:
 *
 * <ul>
 *   <li>A batch that is rejected for its content, or keeps failing in a way that its content may
 *       cause, is bisected until the poison text fails alone. A half has one attempt, a single text
 *       has all of them.
 *   <li>A text without a usable vector in an otherwise good response is sent once more, alone.
 *   <li>A slow batch releases its slot. When a later batch succeeds before it, or when it is the
 *       only batch left, its halves are sent in parallel to it, and the first response wins. While
 *       the whole pool is stuck no text is sent twice.
 * </ul>
 */
public final class EmbeddingBatcher implements CallExecutor {

    private final PoolClient client;
    private final TenantBuffers buffers;
    private final VectorDimension dimension;
    private final Deque<EmbeddingBatch> retries = new ArrayDeque<>();
    private boolean retryNext;
    private int slotsInUse;
    private long generation;
    private long lastSuccess = -1; // the highest generation that has succeeded
    private Future<?> linger;

    public EmbeddingBatcher(PoolClient client) {
        this.client = client;
        this.buffers = new TenantBuffers(client.config(), client.metrics().queued());
        this.dimension = new VectorDimension(client.config().dim());
    }

    @Override
    public void execute(CallRequest request, long deadlineNs, Consumer<CallResult> callback) {
        PendingText text = new PendingText(request, System.nanoTime(), deadlineNs, callback);
        text.startTimer(
                client.schedule(
                        deadlineNs - System.nanoTime(), TimeUnit.NANOSECONDS, () -> expire(text)));
        buffers.add(text);
        dispatch();
    }

    private void expire(PendingText text) {
        buffers.remove(text);
        complete(text, client.timeout(text.attempts(), text.lastReason()));
    }

    private void dispatch() {
        while (slotsInUse < client.config().requestsMax()) {
            EmbeddingBatch next = next();
            if (next == null) {
                return;
            }
            send(next);
        }
    }

    /** The next batch to send, or null if there is none yet. Alternates retries and new batches. */
    private EmbeddingBatch next() {
        retryNext = !retryNext;
        EmbeddingBatch next = retryNext ? nextRetry() : nextNew();
        if (next != null) {
            return next;
        }
        return retryNext ? nextNew() : nextRetry();
    }

    private EmbeddingBatch nextRetry() {
        while (!retries.isEmpty()) {
            EmbeddingBatch next = retries.poll();
            client.metrics().queued().addAndGet(-next.texts().size());
            EmbeddingBatch open = next.withoutDone();
            if (!open.texts().isEmpty()) {
                return open;
            }
        }
        return null;
    }

    private EmbeddingBatch nextNew() {
        long nowNs = System.nanoTime();
        List<PendingText> texts = buffers.take(nowNs);
        if (!texts.isEmpty()) {
            return new EmbeddingBatch(texts, generation++, client.config().attemptsMax(), -1);
        }
        long dueNs = buffers.nextDueNs();
        if (dueNs != TenantBuffers.NEVER && (linger == null || linger.isDone())) {
            linger = client.schedule(dueNs - nowNs, TimeUnit.NANOSECONDS, this::lingerExpired);
        }
        return null;
    }

    private void lingerExpired() {
        linger = null; // this is its own task, so isDone is still false
        dispatch();
    }

    private void send(EmbeddingBatch batch) {
        slotsInUse++;
        client.metrics().gatheredItems().update(batch.texts().size());
        client.metrics().gatheredTokens().update(batch.tokens());
        batch.prepare(client, result -> settle(batch, result));
        batch.scheduleSlowCheck(client, () -> checkSlow(batch));
        batch.start();
    }

    private void settle(EmbeddingBatch batch, CallResult result) {
        releaseSlot(batch);
        for (PendingText text : batch.texts()) {
            text.leave(batch);
        }
        if (result.isOk()) {
            lastSuccess = Math.max(lastSuccess, batch.generation());
            client.metrics().tokensIn().inc(batch.response().tokensIn());
            deliver(batch, result.status());
        } else if (!batch.isBisected()) {
            handleFailure(batch, result);
        }
        // Asynchronously: a request that ends while it starts would re-enter dispatch().
        client.run(this::dispatch);
    }

    private void deliver(EmbeddingBatch batch, int status) {
        EmbeddingCodec.Slot[] slots = batch.response().slots();
        dimension.check(slots);
        for (int i = 0; i < slots.length; i++) {
            PendingText text = batch.texts().get(i);
            EmbeddingCodec.Slot slot = slots[i];
            if (slot.reason().isEmpty()) {
                complete(text, CallResult.ok(status, text.attempts(), slot.vector()));
            } else if (batch.isSingle()) {
                complete(text, CallResult.failure(0, text.attempts(), slot.reason()));
            } else if (!batch.isBisected()) {
                enqueue(batch.retry(List.of(text), generation++, client.config().attemptsMax()));
            }
        }
    }

    private void handleFailure(EmbeddingBatch batch, CallResult result) {
        HttpReply last = batch.last();
        if (batch.isSingle() || !last.mayBeContentError()) {
            for (PendingText text : batch.open()) {
                complete(
                        text,
                        CallResult.failure(result.status(), text.attempts(), result.reason()));
            }
        } else if (last.isRetryable()) {
            // An engine in trouble must not get twice as many requests immediately.
            long delayMs = Backoff.delayMs(batch.attempts(), last.retryAfterMs(), 0.5);
            client.schedule(
                    delayMs,
                    TimeUnit.MILLISECONDS,
                    () -> {
                        bisect(batch);
                        dispatch();
                    });
        } else {
            bisect(batch);
        }
    }

    private void bisect(EmbeddingBatch batch) {
        List<PendingText> open = batch.open();
        if (open.isEmpty()) {
            return;
        }
        batch.markBisected();
        long shared = generation++;
        int middle = (open.size() + 1) / 2;
        List<PendingText> left = open.subList(0, middle);
        List<PendingText> right = open.subList(middle, open.size());
        for (List<PendingText> half : List.of(left, right)) {
            if (!half.isEmpty()) {
                int attemptsMax = half.size() == 1 ? client.config().attemptsMax() : 1;
                enqueue(batch.retry(half, shared, attemptsMax));
            }
        }
    }

    private void enqueue(EmbeddingBatch batch) {
        retries.add(batch);
        client.metrics().queued().addAndGet(batch.texts().size());
    }

    private void checkSlow(EmbeddingBatch batch) {
        releaseSlot(batch);
        boolean overtaken = lastSuccess >= batch.generation();
        boolean alone = slotsInUse == 0 && batch.slowChecks() > 1;
        if (batch.open().size() > 1) {
            if (overtaken || alone) {
                bisect(batch);
            } else {
                batch.scheduleSlowCheck(client, () -> checkSlow(batch));
            }
        }
        dispatch();
    }

    private void releaseSlot(EmbeddingBatch batch) {
        if (batch.releaseSlot()) {
            slotsInUse--;
        }
    }

    private void complete(PendingText text, CallResult result) {
        if (!text.finish()) {
            return;
        }
        for (EmbeddingBatch batch : text.batches()) {
            if (batch.open().isEmpty()) {
                batch.cancel(); // all of its texts are done
                releaseSlot(batch);
                client.run(this::dispatch);
            }
        }
        text.deliver(result);
    }
}
