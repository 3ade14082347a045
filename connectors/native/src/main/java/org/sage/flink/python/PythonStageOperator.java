package org.sage.flink.python;

import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.python.PythonOptions;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.python.DataStreamPythonFunctionInfo;
import org.apache.flink.streaming.api.operators.python.process.AbstractExternalDataStreamPythonFunctionOperator;
import org.apache.flink.streaming.api.operators.python.process.ExternalPythonProcessOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * PyFlink's process operator with a bound on the share of time that its bundles cost. A bundle is
 * {@code python.fn-execution.bundle.time} long; in a task that is never idle it is four times as
 * long as the end of the last one took, so that ends take a fifth of the time at most. 25 bundle
 * times are the most, because an end may have waited for a slow consumer. Not for a stage that
 * writes: its ends are the writes themselves.
 *
 * <p>A task that waits for records has nothing to catch up with, and longer bundles would only delay
 * them: on a slow machine a call took 160 ms longer instead of 59.
 *
 * <p>The end of a bundle is a round trip to the Python worker while the operator reads no record. It
 * takes 1 to 2 ms in a warm JVM, and some 30 ms in one that has just started on a busy machine. There
 * bundles of 10 ms held one or two records: a job with 600 records to catch up with spent its CPU
 * time on round trips, and gave its first output 43 to 51 s after a killed TaskManager instead of 19
 * to 24 s.
 */
public final class PythonStageOperator<IN, OUT> extends ExternalPythonProcessOperator<IN, OUT> {

    private static final long serialVersionUID = 1L;

    private static final int ENDS_PER_BUNDLE = 4;
    private static final int LONGEST_IN_BUNDLE_TIMES = 25;

    private final TypeInformation<IN> inputType;

    private transient long delayMs;
    private transient long idleAtEndMs;

    PythonStageOperator(
            Configuration config,
            DataStreamPythonFunctionInfo function,
            TypeInformation<IN> inputType,
            TypeInformation<OUT> outputType) {
        super(config, function, inputType, outputType);
        this.inputType = inputType;
    }

    /** The output of {@code operator}'s function on {@code stream}. */
    public static <IN, OUT> SingleOutputStreamOperator<OUT> wire(
            DataStream<IN> stream, ExternalPythonProcessOperator<IN, OUT> operator, String name) {
        TypeInformation<OUT> outputType = operator.getProducedType();
        return stream.transform(
                name,
                outputType,
                new PythonStageOperator<>(
                        operator.getConfiguration(),
                        operator.getPythonFunctionInfo(),
                        stream.getType(),
                        outputType));
    }

    @Override
    public void processElement(StreamRecord<IN> element) throws Exception {
        if (delayMs > 0 && idleMs() > idleAtEndMs) {
            lastFinishBundleTime -= delayMs;
            delayMs = 0;
        }
        super.processElement(element);
    }

    @Override
    protected void invokeFinishBundle() throws Exception {
        long startMs = getProcessingTimeService().getCurrentProcessingTime();
        super.invokeFinishBundle();
        long endMs = getProcessingTimeService().getCurrentProcessingTime();
        delayMs = delay(endMs - startMs, config.get(PythonOptions.MAX_BUNDLE_TIME_MILLS));
        idleAtEndMs = idleMs();
        lastFinishBundleTime += delayMs;
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

    /** The milliseconds by which a bundle is longer after one whose end took {@code tookMs}. */
    static long delay(long tookMs, long bundleMs) {
        long lengthMs = Math.min(ENDS_PER_BUNDLE * tookMs, LONGEST_IN_BUNDLE_TIMES * bundleMs);
        return Math.max(0, lengthMs - bundleMs);
    }

    /** A stage that is chained with another Python operator stays a stage. */
    @Override
    public <T> AbstractExternalDataStreamPythonFunctionOperator<T> copy(
            DataStreamPythonFunctionInfo function, TypeInformation<T> outputType) {
        return new PythonStageOperator<>(config, function, inputType, outputType);
    }
}
