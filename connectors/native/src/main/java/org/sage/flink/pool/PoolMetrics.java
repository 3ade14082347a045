package org.sage.flink.pool;

import java.util.concurrent.atomic.AtomicInteger;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.metrics.DescriptiveStatisticsHistogram;

/**
 * The Flink metrics of pool calls. Counters and histograms are written on the client's event loop
 * only, because Flink's implementations are not safe for several writers.
 *
 * @param inFlight records with a call in flight
 * @param queued texts waiting for a request, and requests waiting for their next attempt
 * @param urlsAway suspended endpoints
 * @param attempts HTTP requests
 * @param retries HTTP requests that repeat an earlier one
 * @param failed records with a failed call
 * @param merged records that got the answer of another request
 * @param tokensIn prompt tokens, from the {@code usage} of the responses
 * @param tokensOut completion tokens, from the {@code usage} of the responses
 * @param latencyMs from the arrival of a record to its result
 * @param gatheredItems texts in an embedding request
 * @param gatheredTokens estimated tokens in an embedding request
 */
public record PoolMetrics(
        AtomicInteger inFlight,
        AtomicInteger queued,
        AtomicInteger urlsAway,
        Counter attempts,
        Counter retries,
        Counter failed,
        Counter merged,
        Counter tokensIn,
        Counter tokensOut,
        Histogram latencyMs,
        Histogram gatheredItems,
        Histogram gatheredTokens) {

    private static final int WINDOW = 2048;

    /** The metrics, registered in {@code group}. */
    public static PoolMetrics register(MetricGroup group) {
        return new PoolMetrics(
                gauge(group, "in_flight"),
                gauge(group, "queued"),
                gauge(group, "urls_away"),
                group.counter("attempts"),
                group.counter("retries"),
                group.counter("failed"),
                group.counter("merged"),
                group.counter("tokens_in"),
                group.counter("tokens_out"),
                histogram(group, "latency_ms"),
                histogram(group, "gathered_items"),
                histogram(group, "gathered_tokens"));
    }

    private static AtomicInteger gauge(MetricGroup group, String name) {
        AtomicInteger value = new AtomicInteger();
        group.gauge(name, (Gauge<Integer>) value::get);
        return value;
    }

    private static Histogram histogram(MetricGroup group, String name) {
        return group.histogram(name, new DescriptiveStatisticsHistogram(WINDOW));
    }
}
