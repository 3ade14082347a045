package org.sage.flink.pool;

import java.util.function.Consumer;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/** One way to put a question to the pool. */
public interface CallExecutor {

    /**
     * Tells the answer exactly once, at the deadline at the latest, ok or failed; never throws.
     * Called on, and answers on, the pool's timer thread.
     */
    void ask(CallRequest question, long deadlineNs, Consumer<CallResult> then);
}
