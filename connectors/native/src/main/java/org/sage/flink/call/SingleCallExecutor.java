package org.sage.flink.call;

import java.util.function.Consumer;
import org.sage.flink.pool.CallExecutor;
import org.sage.flink.pool.PoolClient;
import org.sage.flink.pool.ResponseSummary;
import org.sage.flink.pool.RetryingRequest;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/** A request a question: the body as it stands, under the question's own headers. */
record SingleCallExecutor(PoolClient pool) implements CallExecutor {

    @Override
    public void ask(CallRequest question, long deadlineNs, Consumer<CallResult> then) {
        RetryingRequest.Spec asked =
                new RetryingRequest.Spec(
                        question.body(),
                        question.headers(),
                        deadlineNs,
                        pool.config().attemptsMax(),
                        -1);
        new RetryingRequest(pool, asked, this::check, then).start();
    }

    private String check(byte[] body) {
        ResponseSummary generated = ResponseSummary.read(body);
        pool.metrics().tokensIn().inc(generated.tokensIn());
        pool.metrics().tokensOut().inc(generated.tokensOut());
        return generated.reason();
    }
}
