package org.sage.flink.call;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.EMBED;
import static org.sage.flink.testing.CallHarness.config;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.groups.UnregisteredMetricsGroup;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.sage.flink.batching.EmbeddingBatcher;
import org.sage.flink.pool.CallExecutor;
import org.sage.flink.pool.PoolClient;
import org.sage.flink.pool.PoolConfig;
import org.sage.flink.pool.PoolMetrics;
import org.sage.flink.testing.FakePool;
import org.sage.flink.wire.CallRequest;

/** The metrics that Flink gets while calls are in flight. */
@Timeout(30)
class PoolMetricsTest {

    private final PoolMetrics metrics = PoolMetrics.register(new UnregisteredMetricsGroup());

    @Test
    void everyMetricHasItsName() {
        Set<String> names = new TreeSet<>();

        PoolMetrics.register(
                new UnregisteredMetricsGroup() {
                    @Override
                    public Counter counter(String name) {
                        names.add(name);
                        return super.counter(name);
                    }

                    @Override
                    public <T, G extends Gauge<T>> G gauge(String name, G gauge) {
                        names.add(name);
                        return super.gauge(name, gauge);
                    }

                    @Override
                    public <H extends Histogram> H histogram(String name, H histogram) {
                        names.add(name);
                        return super.histogram(name, histogram);
                    }
                });

        assertEquals(
                Set.of(
                        "in_flight", "queued", "urls_away", "attempts", "retries", "failed",
                        "merged", "tokens_in", "tokens_out", "latency_ms", "gathered_items",
                        "gathered_tokens"),
                names);
    }

    @Test
    void tokensAreCountedFromTheUsageOfTheResponse() throws Exception {
        String body =
                "{\"choices\":[{\"usage\":1}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}";
        try (FakePool engine =
                        new FakePool((n, request) -> new FakePool.Response(n == 0 ? 500 : 200, body));
                PoolClient pool = pool(config(engine.url(), ""))) {
            call(pool, new SingleCallExecutor(pool), List.of("{}"));

            assertEquals(7, metrics.tokensIn().getCount());
            assertEquals(5, metrics.tokensOut().getCount());
            assertEquals(2, metrics.attempts().getCount());
            assertEquals(1, metrics.retries().getCount());
        }
    }

    @Test
    void anEmbeddingBatchIsMeasuredInItemsAndTokens() throws Exception {
        try (FakePool engine = new FakePool((n, request) -> withUsage(request));
                PoolClient pool = pool(config(engine.url(), EMBED + ",\"linger_ms\":100"))) {
            call(pool, new EmbeddingBatcher(pool), List.of("x".repeat(40), "x".repeat(41)));

            assertEquals(2, metrics.gatheredItems().getStatistics().getMax());
            assertEquals(21, metrics.gatheredTokens().getStatistics().getMax());
            assertEquals(9, metrics.tokensIn().getCount());
            assertEquals(0, metrics.queued().get());
        }
    }

    @Test
    void queuedRequestsAndSuspendedEndpointsAreCounted() throws Exception {
        CountDownLatch requests = new CountDownLatch(2);
        try (FakePool sick =
                        new FakePool(
                                (n, request) -> {
                                    requests.countDown();
                                    return new FakePool.Response(n < 2 ? 503 : 200, "{}");
                                });
                PoolClient pool = pool(config(sick.url(), "\"attempts_max\":9"))) {
            CountDownLatch results = new CountDownLatch(1);
            execute(pool, new SingleCallExecutor(pool), "{}", results);
            assertTrue(requests.await(5, TimeUnit.SECONDS));

            boolean seen = false;
            while (results.getCount() > 0) {
                seen |= metrics.urlsAway().get() == 1 && metrics.queued().get() == 1;
            }

            assertTrue(seen);
            assertEquals(0, metrics.urlsAway().get());
            assertEquals(0, metrics.queued().get());
        }
    }

    private static FakePool.Response withUsage(FakePool.Request request) {
        String body = FakePool.embeddings(request.texts()).body();
        return new FakePool.Response(
                200, body.substring(0, body.length() - 1) + ",\"usage\":{\"prompt_tokens\":9}}");
    }

    private PoolClient pool(String config) throws Exception {
        return new PoolClient(PoolConfig.of(config), Optional.empty(), metrics, 0);
    }

    private static void call(PoolClient pool, CallExecutor executor, List<String> bodies)
            throws Exception {
        CountDownLatch results = new CountDownLatch(bodies.size());
        bodies.forEach(body -> execute(pool, executor, body, results));
        assertTrue(results.await(10, TimeUnit.SECONDS));
    }

    private static void execute(
            PoolClient pool, CallExecutor executor, String body, CountDownLatch results) {
        CallRequest request =
                new CallRequest(
                        new byte[0],
                        "id",
                        body.getBytes(StandardCharsets.UTF_8),
                        new LinkedHashMap<>());
        long deadlineNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        pool.run(() -> executor.execute(request, deadlineNs, result -> results.countDown()));
    }
}
