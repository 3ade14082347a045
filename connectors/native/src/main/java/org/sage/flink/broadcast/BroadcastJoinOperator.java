package org.sage.flink.broadcast;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ScheduledFuture;
import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.api.common.state.BroadcastState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OperatorSnapshotFutures;
import org.apache.flink.streaming.api.operators.TwoInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordLimit;

/**
 * Operator that gives each record the rows of the broadcast input. Changes of the rows take effect
 * between two records that a checkpoint barrier separates, at the same barrier in all subtasks.
 *
 * <p>The changes come from one subtask over channels that each subtask reads in order, and with
 * aligned checkpoints a barrier is behind the same changes in all of them. So the changes before a
 * barrier are the same everywhere, and are the next version.
 *
 * <p>A checkpoint may fail in some subtasks behind its barrier and in others before it. So the first
 * record behind a barrier with changes waits until that checkpoint is complete, and then has the new
 * version; where the checkpoint has failed, it has the old version, and the changes wait for the next
 * barrier. Flink notifies all subtasks alike. Nothing that the checkpoint needs waits for that record:
 * the barrier has passed this operator.
 *
 * <p>Flink does not tell operators when a savepoint is complete, so a savepoint's barrier changes
 * nothing in the running job. The state in a savepoint or checkpoint has the changes before its
 * barrier: a job that starts from it has them from its first record.
 */
public final class BroadcastJoinOperator extends AbstractStreamOperator<byte[]>
        implements TwoInputStreamOperator<byte[], byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private static final MapStateDescriptor<String, byte[]> ROWS =
            new MapStateDescriptor<>(
                    "rows",
                    Types.STRING,
                    PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
    private static final MapStateDescriptor<String, Long> VERSION =
            new MapStateDescriptor<>("version", Types.STRING, Types.LONG);
    private static final String NUMBER = "number";

    /** Twice Flink's limit of a checkpoint: Flink did not say what became of it. */
    private static final long WAIT_MAX_MS = 2 * 3_600_000L;

    private final BroadcastConfig settings;

    private transient BroadcastState<String, byte[]> savedRows;
    private transient BroadcastState<String, Long> savedVersion;
    private transient BroadcastRows rows;
    private transient Map<String, byte[]> pending;
    private transient Deque<Switch> switches;
    private transient boolean isSavepoint;
    private transient RecordFields value;
    private transient RecordFields key;
    private transient MailboxExecutor mailbox;

    /** Changes that become a version when the checkpoint is complete. */
    private record Switch(long checkpointId, Map<String, byte[]> changes) {}

    BroadcastJoinOperator(BroadcastConfig settings) {
        this.settings = settings;
    }

    /** The records of {@code in} with the rows, and counter deltas of those that are refused. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, DataStream<byte[]> changes, String config) {
        BroadcastConfig settings = BroadcastConfig.of(config);
        return in.connect(changes.broadcast())
                .transform(
                        settings.step(),
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new BroadcastJoinOperator(settings))
                .uid(settings.step());
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        savedRows = context.getOperatorStateStore().getBroadcastState(ROWS);
        savedVersion = context.getOperatorStateStore().getBroadcastState(VERSION);
        rows = new BroadcastRows(settings.initial());
        pending = new LinkedHashMap<>();
        switches = new ArrayDeque<>();
        if (savedVersion.contains(NUMBER)) {
            Map<String, byte[]> saved = new LinkedHashMap<>();
            savedRows.entries().forEach(row -> saved.put(row.getKey(), row.getValue()));
            rows.change(savedVersion.get(NUMBER), saved);
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        value = new RecordFields(List.of(""));
        key = new RecordFields(settings.field().isEmpty() ? List.of() : List.of(settings.field()));
        mailbox =
                getContainingTask()
                        .getMailboxExecutorFactory()
                        .createExecutor(getOperatorConfig().getChainIndex());
    }

    @Override
    public void processElement1(StreamRecord<byte[]> element) throws Exception {
        awaitSwitches();
        byte[] record = element.getValue();
        RecordFields.Found found = key.read(record);
        if (found.isDelete()) {
            output.collect(element);
            return;
        }
        byte[] made;
        try {
            made = RecordChange.withField(record, settings.into(), rowsOf(found));
            RecordLimit.check(made.length);
        } catch (IllegalArgumentException e) {
            settings.failed().refuse(output, record, e.getMessage(), "left_read");
            return;
        }
        output.collect(element.replace(made));
    }

    private byte[] rowsOf(RecordFields.Found found) {
        if (settings.field().isEmpty()) {
            return rows.all();
        }
        return rows.one(Keys.text(Keys.of(found.fields()[0], settings.field())));
    }

    @Override
    public void processElement2(StreamRecord<byte[]> element) {
        RecordFields.Found found = value.read(element.getValue());
        byte[] row = found.isDelete() ? BroadcastRows.DELETED : found.fields()[0];
        pending.put(Keys.text(found.key()), row);
    }

    /** Waits until it is known what became of all checkpoints whose barriers were behind changes. */
    private void awaitSwitches() throws Exception {
        if (switches.isEmpty()) {
            return;
        }
        long limitMs = getProcessingTimeService().getCurrentProcessingTime() + WAIT_MAX_MS;
        ScheduledFuture<?> limit =
                getProcessingTimeService()
                        .registerTimer(
                                limitMs,
                                time -> {
                                    throw new IllegalStateException(
                                            "Flink did not say whether the checkpoint with a new"
                                                    + " version of '"
                                                    + settings.step()
                                                    + "' was complete");
                                });
        while (!switches.isEmpty()) {
            mailbox.yield();
        }
        limit.cancel(false);
    }

    @Override
    public OperatorSnapshotFutures snapshotState(
            long checkpointId,
            long timestamp,
            CheckpointOptions options,
            CheckpointStreamFactory location)
            throws Exception {
        isSavepoint = options.getCheckpointType().isSavepoint();
        return super.snapshotState(checkpointId, timestamp, options, location);
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        long version = pending.isEmpty() ? lastVersion() : context.getCheckpointId();
        savedRows.clear();
        savedRows.putAll(rows.changed());
        for (Switch one : switches) {
            savedRows.putAll(one.changes());
        }
        savedRows.putAll(pending);
        savedVersion.put(NUMBER, version);
        if (!isSavepoint && !pending.isEmpty()) {
            switches.add(new Switch(version, pending));
            pending = new LinkedHashMap<>();
        }
    }

    private long lastVersion() {
        return switches.isEmpty() ? rows.version() : switches.getLast().checkpointId();
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) throws Exception {
        super.notifyCheckpointComplete(checkpointId);
        while (!switches.isEmpty() && switches.getFirst().checkpointId() <= checkpointId) {
            Switch next = switches.removeFirst();
            rows.change(next.checkpointId(), next.changes());
        }
    }

    /** The changes of that checkpoint are those of the next one. */
    @Override
    public void notifyCheckpointAborted(long checkpointId) throws Exception {
        super.notifyCheckpointAborted(checkpointId);
        Deque<Switch> kept = new ArrayDeque<>();
        Map<String, byte[]> aborted = Map.of();
        for (Switch one : switches) {
            Map<String, byte[]> changes = new LinkedHashMap<>(aborted);
            changes.putAll(one.changes());
            if (one.checkpointId() == checkpointId) {
                aborted = changes;
            } else {
                kept.add(new Switch(one.checkpointId(), changes));
                aborted = Map.of();
            }
        }
        if (!aborted.isEmpty()) {
            Map<String, byte[]> changes = new LinkedHashMap<>(aborted);
            changes.putAll(pending);
            pending = changes;
        }
        switches = kept;
    }

    /** Event time is that of the records; the changes have no part in it. */
    @Override
    public void processWatermark1(Watermark mark) {
        output.emitWatermark(mark);
    }

    @Override
    public void processWatermark2(Watermark mark) {
        // As above.
    }

    @Override
    protected void processWatermarkStatus(WatermarkStatus status, int index) {
        if (index == 0) {
            output.emitWatermarkStatus(status);
        }
    }
}
