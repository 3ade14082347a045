package org.sage.flink.call;

import java.util.function.Consumer;
import org.sage.flink.pool.CallExecutor;
import org.sage.flink.pool.PoolClient;
import org.sage.flink.pool.ResponseSummary;
import org.sage.flink.pool.RetryingRequest;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/** Call executor that sends one HTTP request for each call, with the call's own body and headers. */
record SingleCallExecutor(PoolClient client) implements CallExecutor {

    @Override
    public void execute(CallRequest request, long deadlineNs, Consumer<CallResult> callback) {
        RetryingRequest.Spec spec =
                new RetryingRequest.Spec(
                        request.body(),
                        request.headers(),
                        deadlineNs,
                        client.config().attemptsMax(),
                        -1);
        new RetryingRequest(client, spec, this::check, callback).start();
    }

    private String check(byte[] body) {
        ResponseSummary summary = ResponseSummary.read(body);
        client.metrics().tokensIn().inc(summary.tokensIn());
        client.metrics().tokensOut().inc(summary.tokensOut());
        return summary.reason();
    }
}
