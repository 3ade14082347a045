package org.sage.flink.batching;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/** A text on its way through {@link EmbeddingBatcher}; ends once. */
final class PendingText {

    private static final int BYTES_A_TOKEN = 4;

    final CallRequest question;
    final long arrivedNs;
    final long deadlineNs;
    final Consumer<CallResult> then;

    /** The requests in flight that hold it: more than one while it is asked beside a slow one. */
    final List<EmbeddingBatch> batches = new ArrayList<>(1);

    Future<?> deadline;
    boolean ended;
    private int attemptsBefore;
    private String reasonBefore = "";

    PendingText(CallRequest question, long arrivedNs, long deadlineNs, Consumer<CallResult> then) {
        this.question = question;
        this.arrivedNs = arrivedNs;
        this.deadlineNs = deadlineNs;
        this.then = then;
    }

    /** Roughly: four bytes each. */
    int tokens() {
        return (question.body().length + BYTES_A_TOKEN - 1) / BYTES_A_TOKEN;
    }

    String tenant() {
        return question.headers().getOrDefault(CallRequest.TENANT, "");
    }

    String priority() {
        return question.headers().getOrDefault(CallRequest.PRIORITY, "");
    }

    /** Requests that held this text. */
    int attempts() {
        return attemptsBefore + batches.stream().mapToInt(b -> b.request.attempts()).sum();
    }

    /** Why the latest attempt failed, empty where none did. */
    String lastReason() {
        String latest =
                batches.isEmpty() ? "" : batches.get(batches.size() - 1).request.last().reason();
        return latest.isEmpty() ? reasonBefore : latest;
    }

    /** It is no longer in that request, which has ended. */
    void leave(EmbeddingBatch batch) {
        String reason = batch.request.last().reason();
        attemptsBefore += batch.request.attempts();
        reasonBefore = reason.isEmpty() ? reasonBefore : reason;
        batches.remove(batch);
    }
}
