package org.sage.flink.python;

import static org.sage.flink.python.ElementBytes.bytes;
import static org.sage.flink.python.ElementBytes.with;

import java.util.List;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.ExceptionUtils;
import org.sage.flink.wire.StageSignal;
import org.sage.flink.wire.WireBatch;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The second run of a bundle whose worker died: in a new worker, which gets one element at a time. */
final class BundleRerun<IN> {

    private static final Logger LOG = LoggerFactory.getLogger(BundleRerun.class);

    /** How Beam reports what Python raised; after any other error the worker is dead. */
    private static final String RAISED_IN_PYTHON = "Error received from SDK harness";

    private final PythonStageOperator<IN, ?> operator;
    private final List<Tuple3<String, byte[], Integer>> results;
    private final boolean takesBatches;

    private boolean workerIsNew;

    /**
     * @param results of the bundle; {@code operator} adds those of each element
     * @param takesBatches whether an element is a batch, whose records are tried one by one
     */
    BundleRerun(
            PythonStageOperator<IN, ?> operator,
            List<Tuple3<String, byte[], Integer>> results,
            boolean takesBatches) {
        this.operator = operator;
        this.results = results;
        this.takesBatches = takesBatches;
    }

    /**
     * Replaces the results by those of a new worker.
     *
     * @throws Exception {@code failure} itself, where it is not the death of a worker
     */
    void run(List<StreamRecord<IN>> elements, Exception failure) throws Exception {
        requireDeath(failure);
        LOG.warn("The Python worker died; its {} elements run alone", elements.size(), failure);
        results.clear();
        startWorker();
        for (StreamRecord<IN> element : elements) {
            if (!runAlone(element)) {
                runRecords(element);
            }
        }
    }

    private void runRecords(StreamRecord<IN> element) throws Exception {
        byte[] lost = bytes(element);
        List<byte[]> records = takesBatches ? WireBatch.split(lost) : List.of(lost);
        for (byte[] record : records) {
            if (records.size() == 1 || !runAlone(with(element, record))) {
                refuse(with(element, record));
            }
        }
    }

    /**
     * Whether a worker survives the element. One that had other elements before does not count: they
     * may have left a thread or broken memory. After a death the results of the element are dropped
     * and a new worker runs.
     */
    private boolean runAlone(StreamRecord<IN> element) throws Exception {
        boolean first = workerIsNew;
        workerIsNew = false;
        int before = results.size();
        StreamRecord<IN> sent = operator.toWorker(element);
        try {
            operator.runAsBundle(sent);
            return true;
        } catch (Exception failure) {
            requireDeath(failure);
            results.subList(before, results.size()).clear();
            startWorker();
            return !first && runAlone(element);
        }
    }

    private void refuse(StreamRecord<IN> element) throws Exception {
        LOG.error("An element of {} bytes ended two Python workers", bytes(element).length);
        operator.runAsBundle(with(element, StageSignal.refused(bytes(element))));
    }

    private void startWorker() throws Exception {
        operator.startWorker();
        workerIsNew = true;
    }

    private void requireDeath(Exception failure) throws Exception {
        boolean raised =
                ExceptionUtils.findThrowableWithMessage(failure, RAISED_IN_PYTHON).isPresent()
                        || ExceptionUtils.findThrowable(failure, InterruptedException.class).isPresent()
                        || ExceptionUtils.findThrowable(failure, Error.class).isPresent();
        if (raised || operator.getContainingTask().isCanceled()) {
            throw failure;
        }
    }
}
