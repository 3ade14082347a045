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
 * The job's books: the sum of every {@link CounterDelta} since the job began, exactly once, over
 * restarts and savepoints. One subtask for the whole job, so there is one value of each counter.
 *
 * <p>Told to Flink twice. As metrics, {@code step.<step>.<what>}, as they come. And in the
 * accumulator {@value #ACCUMULATOR}, which REST gives while the job runs and after it has ended: the
 * counts as they stood at the last checkpoint barrier, all of them or none ({@link CountersAccumulator}). Barriers
 * cut the stream between two records everywhere, so what one step has emitted there the next has
 * read, and what is asked and not answered is what the checkpoint holds. At the end of the input the
 * last counts take their place.
 *
 * <p>A job that goes on from a savepoint with other steps has counters that begin at nothing beside
 * others that do not. The counts at that moment are kept as {@code opening}: steps agree on what
 * came after it.
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
    private transient CountersAccumulator books;

    /**
     * @param counters {@code <step>.<what>}; what is restored of others is forgotten
     * @param steps the pipeline's shape: another one than before makes an opening
     */
    public JobCountersOperator(List<String> counters, String steps) {
        this.counters = counters.toArray(String[]::new);
        this.steps = steps;
    }

    /** Add the account of all these receipts to the job. */
    public static SingleOutputStreamOperator<byte[]> wire(
            List<DataStream<byte[]>> receipts, List<String> counters, String steps) {
        DataStream<byte[]> first = receipts.get(0);
        @SuppressWarnings({"unchecked", "rawtypes"})
        DataStream<byte[]>[] rest = receipts.stream().skip(1).toArray(DataStream[]::new);
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
        savedCounts = context.getOperatorStateStore().getListState(numbers("counts"));
        savedOpening = context.getOperatorStateStore().getListState(numbers("opening"));
        savedSteps =
                context.getOperatorStateStore()
                        .getListState(new ListStateDescriptor<>("steps", StringSerializer.INSTANCE));
        counts = known(savedCounts);
        opening = known(savedOpening);
        for (String before : savedSteps.get()) {
            if (!before.equals(steps)) {
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
        books = new CountersAccumulator();
        getRuntimeContext().addAccumulator(ACCUMULATOR, books);
        books.state(counts, opening);
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        Map<String, Long> moved = new LinkedHashMap<>();
        CounterDelta.addTo(moved, element.getValue());
        moved.forEach(
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
        books.state(counts, opening);
    }

    @Override
    public void endInput() throws Exception {
        books.state(counts, opening);
        // A metric is gone with its task: let every reporter see the last figures.
        Thread.sleep(
                lingerMs(
                        getContainingTask()
                                .getEnvironment()
                                .getTaskManagerInfo()
                                .getConfiguration()
                                .toMap()));
    }

    /** A little more than the longest interval of a metric reporter, at most five seconds. */
    static long lingerMs(Map<String, String> configuration) {
        return configuration.entrySet().stream()
                .filter(entry -> INTERVAL.matcher(entry.getKey()).matches())
                .mapToLong(entry -> TimeUtils.parseDuration(entry.getValue()).toMillis())
                .map(ms -> Math.min(ms * 3 / 2, LINGER_MS_MAX))
                .max()
                .orElse(0);
    }

    private Map<String, Long> known(ListState<Map<String, Long>> saved) throws Exception {
        Map<String, Long> found = new LinkedHashMap<>();
        for (String counter : counters) {
            found.put(counter, 0L);
        }
        for (Map<String, Long> numbers : saved.get()) {
            numbers.forEach((counter, n) -> found.computeIfPresent(counter, (k, old) -> old + n));
        }
        return found;
    }

    private static ListStateDescriptor<Map<String, Long>> numbers(String name) {
        return new ListStateDescriptor<>(
                name, new MapSerializer<>(StringSerializer.INSTANCE, LongSerializer.INSTANCE));
    }
}
