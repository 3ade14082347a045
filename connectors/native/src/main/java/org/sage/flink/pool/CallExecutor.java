package org.sage.flink.pool;

import java.util.function.Consumer;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/** A strategy for sending call requests to the pool: one HTTP request each, or in batches. */
public interface CallExecutor {

    /**
     * Calls {@code callback} exactly once, at the deadline at the latest, with success or failure;
     * never throws. Must be called on the client's event loop; the callback runs there too.
     */
    void execute(CallRequest request, long deadlineNs, Consumer<CallResult> callback);
}
