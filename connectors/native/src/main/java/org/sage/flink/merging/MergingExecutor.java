package org.sage.flink.merging;

import java.util.function.Consumer;
import org.sage.flink.pool.CallExecutor;
import org.sage.flink.pool.PoolClient;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/**
 * Call executor in which near-equal requests share the answer of the first one. A request whose
 * leader fails is sent itself, with what is left of its time: what was wrong may be the leader's
 * own, such as its length or its deadline.
 *
 * <p>Nothing of it is in a checkpoint but the requests in flight, which the operator keeps: after a
 * restart each of them is asked or merged again, and every one has its own result.
 */
public final class MergingExecutor implements CallExecutor {

    /** The bodies of answers that are kept, together. */
    private static final long ANSWER_BYTES_MAX = 64 << 20;

    private final PoolClient client;
    private final CallExecutor calls;
    private final SharedAnswers answers;

    /**
     * @param calls sends the requests
     */
    public MergingExecutor(PoolClient client, CallExecutor calls) {
        this(client, calls, ANSWER_BYTES_MAX);
    }

    MergingExecutor(PoolClient client, CallExecutor calls, long answerBytesMax) {
        this.client = client;
        this.calls = calls;
        this.answers = new SharedAnswers(client.config().merging(), answerBytesMax);
    }

    @Override
    public void execute(CallRequest request, long deadlineNs, Consumer<CallResult> callback) {
        if (!request.isMergeable()) {
            calls.execute(request, deadlineNs, callback);
            return;
        }
        long nowNs = System.nanoTime();
        SharedAnswers.Answer leader = answers.find(request, nowNs);
        if (leader == null) {
            SharedAnswers.Answer own = answers.add(request, nowNs);
            calls.execute(
                    request,
                    deadlineNs,
                    result -> {
                        callback.accept(result);
                        answers.settle(own, result);
                    });
        } else {
            leader.whenSettled(result -> share(result, request, deadlineNs, callback));
        }
    }

    private void share(
            CallResult result,
            CallRequest request,
            long deadlineNs,
            Consumer<CallResult> callback) {
        if (result.isOk()) {
            client.metrics().merged().inc();
            callback.accept(CallResult.ok(result.status(), 0, result.body()));
        } else {
            calls.execute(request, deadlineNs, callback);
        }
    }
}
