package org.sage.flink.snapshot;

import java.util.Iterator;
import java.util.List;
import java.util.TreeMap;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.python.DataStreamPythonFunctionInfo;
import org.apache.flink.streaming.api.operators.python.process.AbstractExternalDataStreamPythonFunctionOperator;
import org.apache.flink.streaming.api.operators.python.process.ExternalPythonProcessOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.python.PythonStageOperator;
import org.sage.flink.wire.StageSignal;

/**
 * A Python stage that writes a sink with snapshots: its writer learns of every checkpoint.
 *
 * <p>An epoch is {@code base + checkpoint id}. The base is the microsecond at which the job first
 * started, and operator state: a restored job keeps it, and a job without state has a
 * later one. The stage gets three {@link StageSignal}s: <i>restore</i> before its first element, with
 * the epoch that the job starts from; <i>end</i> before a checkpoint's barrier; <i>commit</i> when
 * Flink has completed the checkpoint, with the watermark at its barrier. Where that message is lost,
 * the next commit covers the epoch.
 *
 * <p>There is one subtask. A worker that dies fails the task, since the writer knows which documents
 * of the epoch have not ended; the job restarts from its checkpoint, which undoes the epoch.
 */
public class SnapshotSinkOperator<IN, OUT> extends PythonStageOperator<IN, OUT> {

    private static final long serialVersionUID = 1L;

    private static final long US_PER_MS = 1000;

    private transient ListState<Long> state;
    private transient long base;
    private transient long restoredEpoch;
    private transient boolean isFresh;
    private transient boolean isRestored;
    private transient long watermarkMs;
    /** The watermarks at the barriers of the checkpoints that are not complete. */
    private transient TreeMap<Long, Long> watermarks;

    SnapshotSinkOperator(
            Configuration config,
            DataStreamPythonFunctionInfo function,
            TypeInformation<IN> inputType,
            TypeInformation<OUT> outputType) {
        super(config, function, inputType, outputType, true);
    }

    /** The output of {@code operator}'s function on {@code stream}, whose elements are batches. */
    public static <IN, OUT> SingleOutputStreamOperator<OUT> wire(
            DataStream<IN> stream, ExternalPythonProcessOperator<IN, OUT> operator, String name) {
        TypeInformation<OUT> outputType = operator.getProducedType();
        return stream.transform(
                        name,
                        outputType,
                        new SnapshotSinkOperator<>(
                                operator.getConfiguration(),
                                operator.getPythonFunctionInfo(),
                                stream.getType(),
                                outputType))
                .forceNonParallel();
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        state =
                context.getOperatorStateStore()
                        .getListState(new ListStateDescriptor<>("epoch-base", Types.LONG));
        Iterator<Long> stored = state.get().iterator();
        isFresh = !stored.hasNext();
        base = isFresh ? System.currentTimeMillis() * US_PER_MS : stored.next();
        restoredEpoch = isFresh ? base : base + context.getRestoredCheckpointId().orElse(0);
        watermarkMs = Long.MIN_VALUE;
        watermarks = new TreeMap<>();
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        state.update(List.of(base));
    }

    @Override
    public void processElement(StreamRecord<IN> element) throws Exception {
        restore();
        super.processElement(element);
    }

    /** The end of a stream without watermarks is not one. */
    @Override
    public void processWatermark(Watermark mark) throws Exception {
        if (!mark.equals(Watermark.MAX_WATERMARK) || watermarkMs != Long.MIN_VALUE) {
            watermarkMs = mark.getTimestamp();
        }
        super.processWatermark(mark);
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) throws Exception {
        super.prepareSnapshotPreBarrier(checkpointId);
        restore();
        signalAlone(StageSignal.ended(base + checkpointId));
        watermarks.put(checkpointId, watermarkMs);
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) throws Exception {
        super.notifyCheckpointComplete(checkpointId);
        Long watermark = watermarks.get(checkpointId);
        if (watermark != null) {
            signalAlone(StageSignal.committed(base + checkpointId, watermark));
            watermarks.headMap(checkpointId, true).clear();
        }
    }

    private void restore() throws Exception {
        if (!isRestored) {
            signalAlone(StageSignal.restored(restoredEpoch, isFresh));
            isRestored = true;
        }
    }

    @Override
    protected void workerDied() {
        throw new IllegalStateException(
                "the Python worker of a sink with snapshots died; the job restarts from its checkpoint");
    }

    @Override
    public <T> AbstractExternalDataStreamPythonFunctionOperator<T> copy(
            DataStreamPythonFunctionInfo function, TypeInformation<T> outputType) {
        return new SnapshotSinkOperator<>(config, function, getInputTypeInfo(), outputType);
    }
}
