package org.sage.flink;

import java.util.concurrent.atomic.AtomicInteger;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.metrics.DescriptiveStatisticsHistogram;

/**
 * What a {@link PoolCall} tells Flink. Counters and histograms are written by the call's timer
 * thread only, as Flink's are not made for several writers.
 *
 * @param inFlight records asked and not answered
 * @param attempts HTTP requests
 * @param retries those of them that repeat one
 * @param failed records whose envelope has a reason
 * @param latencyMs from the record's arrival to its answer
 * @param gatheredItems texts in a gathered request
 */
record PoolMetrics(
        AtomicInteger inFlight,
        Counter attempts,
        Counter retries,
        Counter failed,
        Histogram latencyMs,
        Histogram gatheredItems) {

    private static final int WINDOW = 2048;

    static PoolMetrics in(MetricGroup group) {
        AtomicInteger inFlight = new AtomicInteger();
        group.gauge("in_flight", (Gauge<Integer>) inFlight::get);
        return new PoolMetrics(
                inFlight,
                group.counter("attempts"),
                group.counter("retries"),
                group.counter("failed"),
                group.histogram("latency_ms", new DescriptiveStatisticsHistogram(WINDOW)),
                group.histogram("gathered_items", new DescriptiveStatisticsHistogram(WINDOW)));
    }
}
