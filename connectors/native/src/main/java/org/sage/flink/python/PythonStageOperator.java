package org.sage.flink.python;

import static org.sage.flink.python.ElementBytes.bytes;
import static org.sage.flink.python.ElementBytes.with;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.python.PythonOptions;
import org.apache.flink.python.metric.process.FlinkMetricContainer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.python.DataStreamPythonFunctionInfo;
import org.apache.flink.streaming.api.operators.python.process.AbstractExternalDataStreamPythonFunctionOperator;
import org.apache.flink.streaming.api.operators.python.process.ExternalPythonProcessOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.StageSignal;

/**
 * PyFlink's process operator for elements that are {@code byte[]}, with three differences.
 *
 * <p><b>A worker that dies does not fail the task.</b> The operator keeps the elements of the current
 * bundle, and emits the bundle's results when it ends, not before. When the worker dies (a crash in
 * native code, {@code os._exit}, the kernel out of memory), the operator drops the results, starts a
 * worker process of its own and gives it the elements again, one at a time. An element that ends
 * a worker which had no other one is refused: it is sent to the stage as a {@link StageSignal}, which
 * makes it a dead letter. Of an element that is a batch the records are tried one by one. Nothing of
 * the bundle was emitted, so delivery is still exactly once. Operators in other tasks of the slot
 * shared the first process; they get their own in the same way, without a refusal.
 *
 * <p>What Python raises still fails the task: a stage raises only for faults that are not of one
 * record. So does a worker that dies before it gets an element.
 *
 * <p><b>The share of time that bundles cost is bounded</b>, and a batch after a pause does not wait:
 * see {@link BundlePace}.
 *
 * <p><b>Elements cross in groups.</b> A crossing of one element takes PyFlink some 100 us of CPU time
 * in both processes together, as much as a small function takes. Only the first one of a bundle crosses
 * by itself. The results of a group return in a group.
 */
public class PythonStageOperator<IN, OUT> extends ExternalPythonProcessOperator<IN, OUT> {

    private static final long serialVersionUID = 1L;

    /** How long the end of a cancelled operator waits for that of its bundle. */
    private static final long CLOSE_WAIT_S = 2;

    private final TypeInformation<IN> inputType;
    private final boolean takesBatches;

    private transient StageBundle<IN> bundle;
    private transient List<Tuple3<String, byte[], Integer>> results;
    private transient FlinkMetricContainer metrics;
    private transient int bundleItemsMax;
    private transient BundlePace pace;

    protected PythonStageOperator(
            Configuration config,
            DataStreamPythonFunctionInfo function,
            TypeInformation<IN> inputType,
            TypeInformation<OUT> outputType,
            boolean takesBatches) {
        super(config, function, inputType, outputType);
        this.inputType = inputType;
        this.takesBatches = takesBatches;
    }

    /**
     * The output of {@code operator}'s function on {@code stream}.
     *
     * @param takesBatches whether the function's elements are batches, and it may wait for a store
     */
    public static <IN, OUT> SingleOutputStreamOperator<OUT> wire(
            DataStream<IN> stream,
            ExternalPythonProcessOperator<IN, OUT> operator,
            String name,
            boolean takesBatches) {
        TypeInformation<OUT> outputType = operator.getProducedType();
        return stream.transform(
                name,
                outputType,
                new PythonStageOperator<>(
                        operator.getConfiguration(),
                        operator.getPythonFunctionInfo(),
                        stream.getType(),
                        outputType,
                        takesBatches));
    }

    @Override
    public void open() throws Exception {
        bundle = new StageBundle<>(takesBatches);
        results = new ArrayList<>();
        pace = new BundlePace(config.get(PythonOptions.MAX_BUNDLE_TIME_MILLS), takesBatches);
        output = new UngroupedOutput<>(output);
        super.open();
        bundleItemsMax = maxBundleSize;
        maxBundleSize = Integer.MAX_VALUE; // its end must not come from within processElement
    }

    @Override
    public void processElement(StreamRecord<IN> element) throws Exception {
        lastFinishBundleTime -= pace.delayInVain(idleMs());
        bundle.add(element, bytes(toWorker(element)));
        elementCount++; // of the bundle, so that watermarks wait for its end
        if (bundle.groupIsDue()) {
            try {
                sendGroup();
            } catch (Exception failure) {
                runAgain(failure);
                emitBundle();
                return;
            }
        }
        boolean endsAtOnce = bundle.hasOneElement() && pace.endsAtOnce(idleMs());
        if (bundle.isFull(bundleItemsMax) || endsAtOnce) {
            invokeFinishBundle();
        }
    }

    @Override
    protected void invokeFinishBundle() throws Exception {
        if (bundle.isEmpty()) {
            return;
        }
        long startMs = nowMs();
        try {
            finishBundle();
        } catch (Exception failure) {
            runAgain(failure);
        }
        emitBundle();
        lastFinishBundleTime += pace.ended(startMs, nowMs(), idleMs());
    }

    /** Keeps the result until its bundle ends. */
    @Override
    public void emitResult(Tuple3<String, byte[], Integer> result) {
        results.add(Tuple3.of(result.f0, result.f1, result.f2));
    }

    /** What the worker gets of an element. */
    protected StreamRecord<IN> toWorker(StreamRecord<IN> element) throws Exception {
        return element;
    }

    /** Called before the worker's bundle ends, for signals to the stage. */
    protected void endWorkerBundle() throws Exception {}

    /** Called with the results so far when the worker has ended a bundle. */
    protected void workerFinished(List<Tuple3<String, byte[], Integer>> results) throws Exception {}

    /** Called when there is a new worker. */
    protected void workerDied() {}

    /** Called before the results of a bundle are emitted: from here on it is not run again. */
    protected void emitting() throws Exception {}

    /** Sends a {@link StageSignal}. */
    protected final void signal(byte[] signal) throws Exception {
        super.processElement(with(new StreamRecord<>(null), signal));
    }

    /** Sends a {@link StageSignal} between two bundles, and returns when the stage has obeyed it. */
    protected final void signalAlone(byte[] signal) throws Exception {
        invokeFinishBundle();
        runAsBundle(with(new StreamRecord<>(null), signal));
    }

    /** Sends the elements that the worker has not got yet, in one crossing. */
    private void sendGroup() throws Exception {
        if (bundle.hasGroup()) {
            super.processElement(bundle.takeGroup());
        }
    }

    private void emitBundle() throws Exception {
        emitting();
        List<Tuple3<String, byte[], Integer>> ended = results;
        results = new ArrayList<>();
        bundle.clear();
        for (Tuple3<String, byte[], Integer> result : ended) {
            super.emitResult(result);
        }
        if (bundleFinishedCallback != null) {
            bundleFinishedCallback.run();
            bundleFinishedCallback = null;
        }
    }

    private void runAgain(Exception failure) throws Exception {
        new BundleRerun<>(this, results, takesBatches).run(bundle.elements(), failure);
    }

    /** Runs one element, as it is, in a bundle of the worker; its results are kept. */
    final void runAsBundle(StreamRecord<IN> element) throws Exception {
        super.processElement(element);
        finishBundle();
    }

    /** Ends the worker's bundle; the watermark waits for the results, which are emitted later. */
    private void finishBundle() throws Exception {
        Runnable watermark = bundleFinishedCallback;
        bundleFinishedCallback = null;
        try {
            sendGroup();
            endWorkerBundle();
            super.invokeFinishBundle();
        } finally {
            bundleFinishedCallback = watermark;
        }
        workerFinished(results);
    }

    /** Starts a process for this operator alone and opens the stage in it. */
    final void startWorker() throws Exception {
        elementCount = 0;
        bundle.dropGroup();
        baos.reset();
        try {
            pythonFunctionRunner.close();
        } catch (Exception e) {
            LOG.info("The dead Python worker could not be closed", e);
        }
        // Without managed memory PyFlink shares no process among the operators of a slot.
        Configuration own = new Configuration(config);
        own.set(PythonOptions.USE_MANAGED_MEMORY, false);
        pythonFunctionRunner = createPythonFunctionRunner();
        pythonFunctionRunner.open(own);
        workerDied();
        runAsBundle(with(new StreamRecord<>(null), StageSignal.OPEN));
    }

    @Override
    public void close() throws Exception {
        BundleEnd.await(this, CLOSE_WAIT_S);
        try {
            super.close();
        } catch (IllegalStateException e) {
            if (!BundleEnd.cameFirst(e)) {
                throw e;
            }
            LOG.info("The Python worker ended while a bundle of it ended", e);
            pythonFunctionRunner = null;
            super.close();
        }
    }

    /** One container for all workers of the operator: metrics keep their names and their values. */
    @Override
    protected FlinkMetricContainer getFlinkMetricContainer() {
        if (metrics == null) {
            metrics = super.getFlinkMetricContainer();
        }
        return metrics;
    }

    /** The milliseconds that the task has waited for records since its start. */
    private long idleMs() {
        return getContainingTask()
                .getEnvironment()
                .getMetricGroup()
                .getIOMetricGroup()
                .getIdleTimeMsPerSecond()
                .getAccumulatedCount();
    }

    private long nowMs() {
        return getProcessingTimeService().getCurrentProcessingTime();
    }

    /** A stage that is chained with another Python operator stays a stage. */
    @Override
    public <T> AbstractExternalDataStreamPythonFunctionOperator<T> copy(
            DataStreamPythonFunctionInfo function, TypeInformation<T> outputType) {
        return new PythonStageOperator<>(config, function, inputType, outputType, takesBatches);
    }
}
