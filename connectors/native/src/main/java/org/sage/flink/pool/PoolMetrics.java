package org.sage.flink.pool;

import java.util.concurrent.atomic.AtomicInteger;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.metrics.DescriptiveStatisticsHistogram;

/**
 * What a {@link PoolAsyncFunction} tells Flink. Counters and histograms are written on the call's event loop
 * only, as Flink's are not made for several writers.
 *
 * @param inFlight records asked and not answered
 * @param queued texts that wait for a request, and requests that wait for their next attempt
 * @param urlsAway addresses that are put aside
 * @param attempts HTTP requests
 * @param retries those of them that repeat one
 * @param failed records whose envelope has a reason
 * @param tokensIn what the pool says it read, by the {@code usage} of its answers
 * @param tokensOut what it says it wrote
 * @param latencyMs from the record's arrival to its answer
 * @param gatheredItems texts in a gathered request
 * @param gatheredTokens their tokens, estimated
 */
public record PoolMetrics(
        AtomicInteger inFlight,
        AtomicInteger queued,
        AtomicInteger urlsAway,
        Counter attempts,
        Counter retries,
        Counter failed,
        Counter tokensIn,
        Counter tokensOut,
        Histogram latencyMs,
        Histogram gatheredItems,
        Histogram gatheredTokens) {

    private static final int WINDOW = 2048;

    public static PoolMetrics in(MetricGroup group) {
        return new PoolMetrics(
                gauge(group, "in_flight"),
                gauge(group, "queued"),
                gauge(group, "urls_away"),
                group.counter("attempts"),
                group.counter("retries"),
                group.counter("failed"),
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
