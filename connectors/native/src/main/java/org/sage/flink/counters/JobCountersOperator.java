package org.sage.flink.counters;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.api.common.typeutils.base.MapSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.metrics.SimpleCounter;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.TimeUtils;
import org.sage.flink.wire.CounterDelta;

/**
 * Operator with the counters of the whole job: the sum of every {@link CounterDelta} since the job's
 * first start, exactly once, over restarts and savepoints. It has one subtask, so each counter has
 * one value.
 *
 * <p>The sums are published in two ways. As metrics, {@code step.<step>.<what>}, immediately. And in
 * the accumulator {@value #ACCUMULATOR}, which Flink's REST API serves while the job runs and after
 * it has ended: a snapshot of all counters at the last checkpoint barrier ({@link
 * CountersAccumulator}). A barrier is at the same position in every stream, so the records that one
 * step has emitted before it are the records that the next step has read, and calls without a result
 * are exactly those in the checkpoint. At the end of the input the final counts replace the snapshot.
 *
 * <p>A job that is restored from a savepoint with other steps has new counters that start at zero
 * and old ones that do not. The counts at that moment are kept as {@code opening}: the steps balance
 * from there on.
 */
public final class JobCountersOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    static final String ACCUMULATOR = "sage.account";
    static final String UID = "sage.account";

    private static final Pattern INTERVAL = Pattern.compile("metrics\\.reporter\\.[^.]+\\.interval");
    private static final long LINGER_MS_MAX = 5_000;
    private static final Counter NO_METRIC = new SimpleCounter();

    private final String[] counters;
    private final String steps;

    private transient ListState<Map<String, Long>> savedCounts;
    private transient ListState<Map<String, Long>> savedOpening;
    private transient ListState<String> savedSteps;
    private transient Map<String, Long> counts;
    private transient Map<String, Long> opening;
    private transient Map<String, Counter> metrics;
    private transient CountersAccumulator accumulator;

    /**
     * @param counters {@code <step>.<what>}; other counters in restored state are dropped
     * @param steps the pipeline's shape: a change to it sets the opening counts
     */
    public JobCountersOperator(List<String> counters, String steps) {
        this.counters = counters.toArray(String[]::new);
        this.steps = steps;
    }

    /** Adds this operator to the job, as the sum of all these streams of deltas. */
    public static SingleOutputStreamOperator<byte[]> wire(
            List<DataStream<byte[]>> deltas, List<String> counters, String steps) {
        DataStream<byte[]> first = deltas.get(0);
        @SuppressWarnings({"unchecked", "rawtypes"})
        DataStream<byte[]>[] rest = deltas.stream().skip(1).toArray(DataStream[]::new);
        return first.union(rest)
                .transform(
                        "account",
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new JobCountersOperator(counters, steps))
                .uid(UID)
                .forceNonParallel();
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        savedCounts = context.getOperatorStateStore().getListState(descriptor("counts"));
        savedOpening = context.getOperatorStateStore().getListState(descriptor("opening"));
        savedSteps =
                context.getOperatorStateStore()
                        .getListState(new ListStateDescriptor<>("steps", StringSerializer.INSTANCE));
        counts = restore(savedCounts);
        opening = restore(savedOpening);
        for (String previous : savedSteps.get()) {
            if (!previous.equals(steps)) {
                opening = new LinkedHashMap<>(counts);
            }
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        metrics = new LinkedHashMap<>();
        for (String counter : counters) {
            int dot = counter.lastIndexOf('.');
            MetricGroup step = getMetricGroup().addGroup("step", counter.substring(0, dot));
            Counter metric = step.counter(counter.substring(dot + 1));
            metric.inc(counts.get(counter));
            metrics.put(counter, metric);
        }
        accumulator = new CountersAccumulator();
        getRuntimeContext().addAccumulator(ACCUMULATOR, accumulator);
        accumulator.publish(counts, opening);
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        Map<String, Long> delta = new LinkedHashMap<>();
        CounterDelta.addTo(delta, element.getValue());
        delta.forEach(
                (counter, by) -> {
                    counts.merge(counter, by, Long::sum);
                    metrics.getOrDefault(counter, NO_METRIC).inc(by);
                });
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        savedCounts.update(List.of(counts));
        savedOpening.update(List.of(opening));
        savedSteps.update(List.of(steps));
        accumulator.publish(counts, opening);
    }

    @Override
    public void endInput() throws Exception {
        accumulator.publish(counts, opening);
        // Metrics end with their task: wait until every reporter has read the final values.
        Thread.sleep(
                lingerMs(
                        getContainingTask()
                                .getEnvironment()
                                .getTaskManagerInfo()
                                .getConfiguration()
                                .toMap()));
    }

    /** 1.5 times the longest interval of a metric reporter, at most five seconds. */
    static long lingerMs(Map<String, String> configuration) {
        return configuration.entrySet().stream()
                .filter(entry -> INTERVAL.matcher(entry.getKey()).matches())
                .mapToLong(entry -> TimeUtils.parseDuration(entry.getValue()).toMillis())
                .map(ms -> Math.min(ms * 3 / 2, LINGER_MS_MAX))
                .max()
                .orElse(0);
    }

    private Map<String, Long> restore(ListState<Map<String, Long>> saved) throws Exception {
        Map<String, Long> restored = new LinkedHashMap<>();
        for (String counter : counters) {
            restored.put(counter, 0L);
        }
        for (Map<String, Long> part : saved.get()) {
            part.forEach((counter, n) -> restored.computeIfPresent(counter, (k, sum) -> sum + n));
        }
        return restored;
    }

    private static ListStateDescriptor<Map<String, Long>> descriptor(String name) {
        return new ListStateDescriptor<>(
                name, new MapSerializer<>(StringSerializer.INSTANCE, LongSerializer.INSTANCE));
    }
}
