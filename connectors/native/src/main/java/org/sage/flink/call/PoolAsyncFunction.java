package org.sage.flink.call;

import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.typeutils.ResultTypeQueryable;
import org.apache.flink.streaming.api.datastream.AsyncDataStream;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.async.ResultFuture;
import org.apache.flink.streaming.api.functions.async.RichAsyncFunction;
import org.sage.flink.batching.EmbeddingBatcher;
import org.sage.flink.merging.MergeExchange;
import org.sage.flink.merging.MergingExecutor;
import org.sage.flink.pool.CallExecutor;
import org.sage.flink.pool.PoolClient;
import org.sage.flink.pool.PoolConfig;
import org.sage.flink.pool.PoolMetrics;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/**
 * Async function for calls to an OpenAI-compatible pool: one {@link CallRequest} in, one {@link
 * CallResult} out.
 *
 * <p>Never completes exceptionally: a failure is a result with a reason. Requests in flight are part
 * of the checkpoint; after a restart those without a result are sent again, with the same request
 * id and a fresh budget. Each result is emitted once; in the order of the requests only if the
 * settings say {@code ordered}.
 *
 * <p>The timeout is this function's own and ends a record's call. The deadline in the request's
 * header is advice to the pool and does not shorten the timeout; only a record that arrives after
 * its own deadline fails immediately, without a call. A request with an empty body passes through,
 * in its place, with an empty result of status 0.
 *
 * <p>Timeouts, attempts and back-off do not use Flink's AsyncRetryStrategy, which does not support
 * Retry-After and cannot retry a part of a batch.
 */
public final class PoolAsyncFunction extends RichAsyncFunction<byte[], byte[]>
        implements ResultTypeQueryable<byte[]> {

    private static final long serialVersionUID = 1L;

    /** Flink's timer fires this much later than our own timeout, as a safety net. */
    private static final long SLACK_MS = 5_000;

    private final PoolConfig config;

    private transient PoolClient client;
    private transient CallExecutor executor;

    /**
     * @param configJson see {@link PoolConfig}
     * @throws IllegalArgumentException on an invalid setting
     */
    public PoolAsyncFunction(String configJson) {
        this.config = PoolConfig.of(configJson);
    }

    /**
     * Appends this call to the stream, in a task of its own, with name and uid from the settings.
     *
     * <p>In a task of its own, because a Python bundle that finishes in the same task keeps the
     * mailbox busy, and no call starts during that time (measured: 0.69 of the raw client chained,
     * 0.91 unchained). Where requests are merged, those that can share an answer are sent to one
     * subtask.
     *
     * @throws IllegalArgumentException on an invalid setting
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String configJson) {
        PoolAsyncFunction call = new PoolAsyncFunction(configJson);
        PoolConfig config = call.config;
        long timeoutMs = config.timeoutMs() + SLACK_MS;
        DataStream<byte[]> requests = config.merging() == null ? in : MergeExchange.wire(in);
        SingleOutputStreamOperator<byte[]> out =
                config.ordered()
                        ? AsyncDataStream.orderedWait(
                                requests, call, timeoutMs, TimeUnit.MILLISECONDS, config.capacity())
                        : AsyncDataStream.unorderedWait(
                                requests, call, timeoutMs, TimeUnit.MILLISECONDS, config.capacity());
        return out.name(config.name()).uid(config.name()).disableChaining();
    }

    @Override
    public TypeInformation<byte[]> getProducedType() {
        return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    }

    @Override
    public void open(OpenContext context) throws Exception {
        client =
                new PoolClient(
                        config,
                        ApiKey.find(
                                System.getenv(), config.key(), config.keyEnv(), config.keyFile()),
                        PoolMetrics.register(getRuntimeContext().getMetricGroup()),
                        getRuntimeContext().getTaskInfo().getIndexOfThisSubtask());
        executor = config.isEmbed() ? new EmbeddingBatcher(client) : new SingleCallExecutor(client);
        if (config.merging() != null) {
            executor = new MergingExecutor(client, executor);
        }
    }

    @Override
    public void close() {
        if (client != null) {
            client.close();
        }
    }

    @Override
    public void asyncInvoke(byte[] input, ResultFuture<byte[]> output) {
        CallRequest request;
        try {
            request = CallRequest.decode(input);
        } catch (IllegalArgumentException e) {
            // The whole input becomes the carrier, so that no bytes are lost.
            fail(output, input, e.getMessage());
            return;
        }
        if (request.isEmpty()) {
            emit(output, request.carrier(), CallResult.ok(0, 0, CallResult.NO_BODY));
            return;
        }
        long nowMs = System.currentTimeMillis();
        long lateMs = nowMs - request.deadlineMs();
        if (lateMs > 0) {
            String reason = "its deadline had passed " + lateMs + " ms before it was asked";
            fail(output, request.carrier(), reason);
            return;
        }
        request.setDefaultDeadline(nowMs + config.slackMs());
        long startNs = System.nanoTime();
        long deadlineNs = startNs + TimeUnit.MILLISECONDS.toNanos(config.timeoutMs());
        client.metrics().inFlight().incrementAndGet();
        client.run(() -> execute(request, startNs, deadlineNs, output));
    }

    /** A safety net for the case that our own timeout did not fire. */
    @Override
    public void timeout(byte[] input, ResultFuture<byte[]> output) {
        emit(output, carrierOf(input), client.timeout(0, ""));
    }

    private void execute(
            CallRequest request, long startNs, long deadlineNs, ResultFuture<byte[]> output) {
        executor.execute(
                request,
                deadlineNs,
                result -> {
                    PoolMetrics metrics = client.metrics();
                    metrics.inFlight().decrementAndGet();
                    metrics.latencyMs().update((System.nanoTime() - startNs) / 1_000_000);
                    if (!result.isOk()) {
                        metrics.failed().inc();
                    }
                    emit(output, request.carrier(), result);
                });
    }

    /** Emits a failure without a call. */
    private void fail(ResultFuture<byte[]> output, byte[] carrier, String reason) {
        client.run(() -> client.metrics().failed().inc());
        emit(output, carrier, CallResult.failure(0, 0, reason));
    }

    private static byte[] carrierOf(byte[] input) {
        try {
            return CallRequest.decode(input).carrier();
        } catch (IllegalArgumentException e) {
            return input;
        }
    }

    private static void emit(ResultFuture<byte[]> output, byte[] carrier, CallResult result) {
        output.complete(List.of(result.encode(carrier)));
    }
}
