package org.sage.flink.batching;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/** A text on its way through {@link EmbeddingBatcher}: first buffered, then in batches, then done. */
final class PendingText {

    private static final int BYTES_PER_TOKEN = 4;

    private final CallRequest request;
    private final long arrivedNs;
    private final long deadlineNs;
    private final Consumer<CallResult> callback;

    /** The batches in flight with this text: several while a slow one is duplicated in halves. */
    private final List<EmbeddingBatch> batches = new ArrayList<>(1);

    private Future<?> deadlineTimer;
    private boolean done;
    private int earlierAttempts;
    private String earlierReason = "";

    PendingText(
            CallRequest request, long arrivedNs, long deadlineNs, Consumer<CallResult> callback) {
        this.request = request;
        this.arrivedNs = arrivedNs;
        this.deadlineNs = deadlineNs;
        this.callback = callback;
    }

    CallRequest request() {
        return request;
    }

    long arrivedNs() {
        return arrivedNs;
    }

    long deadlineNs() {
        return deadlineNs;
    }

    boolean isDone() {
        return done;
    }

    List<EmbeddingBatch> batches() {
        return batches;
    }

    /** An estimate, from the length in bytes. */
    int tokens() {
        return (request.body().length + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
    }

    String tenant() {
        return request.headers().getOrDefault(CallRequest.TENANT, "");
    }

    String priority() {
        return request.headers().getOrDefault(CallRequest.PRIORITY, "");
    }

    /** HTTP requests that contained this text. */
    int attempts() {
        return earlierAttempts + batches.stream().mapToInt(EmbeddingBatch::attempts).sum();
    }

    /** Why the latest attempt failed; empty if no attempt has failed yet. */
    String lastReason() {
        String latest = batches.isEmpty() ? "" : batches.get(batches.size() - 1).last().reason();
        return latest.isEmpty() ? earlierReason : latest;
    }

    void startTimer(Future<?> timer) {
        deadlineTimer = timer;
    }

    void join(EmbeddingBatch batch) {
        batches.add(batch);
    }

    /** Leaves a batch that has ended, and keeps its attempts and reason. */
    void leave(EmbeddingBatch batch) {
        String reason = batch.last().reason();
        earlierAttempts += batch.attempts();
        earlierReason = reason.isEmpty() ? earlierReason : reason;
        batches.remove(batch);
    }

    /** Marks this text as done; false if it already was. */
    boolean finish() {
        if (done) {
            return false;
        }
        done = true;
        deadlineTimer.cancel(false);
        return true;
    }

    void deliver(CallResult result) {
        callback.accept(result);
    }
}
