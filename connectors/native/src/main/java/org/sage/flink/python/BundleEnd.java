package org.sage.flink.python;

import java.lang.reflect.Field;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.flink.streaming.api.operators.python.process.AbstractExternalPythonFunctionOperator;

/**
 * The end of a bundle, which PyFlink waits for in a thread of its own, and the end of the operator.
 *
 * <p>A cancelled task closes its operators in the task's thread. Beam counts the users of a worker
 * process without a lock: where a bundle ends at that time, the count becomes negative, and Flink
 * takes that for a fatal error and ends the TaskManager, with all its jobs.
 */
final class BundleEnd {

    private static final String NEGATIVE = "Reference count must not be negative";

    private BundleEnd() {}

    /**
     * Waits until no bundle of the operator ends, at most {@code seconds}: one that waits for its
     * store may never end.
     */
    static void await(AbstractExternalPythonFunctionOperator<?> operator, long seconds)
            throws ReflectiveOperationException, ExecutionException {
        Field field =
                AbstractExternalPythonFunctionOperator.class.getDeclaredField("flushThreadPool");
        field.setAccessible(true); // PyFlink has no other way to its one thread
        ExecutorService thread = (ExecutorService) field.get(operator);
        if (thread == null) {
            return;
        }
        boolean isInterrupted = Thread.interrupted(); // as the thread of a cancelled task is
        try {
            thread.submit(() -> {}).get(seconds, TimeUnit.SECONDS);
        } catch (InterruptedException e) {
            isInterrupted = true;
        } catch (TimeoutException e) {
            return;
        } finally {
            if (isInterrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    /** Whether the worker process had ended when the operator released it. */
    static boolean cameFirst(IllegalStateException failure) {
        return String.valueOf(failure.getMessage()).startsWith(NEGATIVE);
    }
}
