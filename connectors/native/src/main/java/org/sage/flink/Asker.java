package org.sage.flink;

import java.util.function.Consumer;

/** One way to put a question to the pool. */
interface Asker {

    /**
     * Tells the answer exactly once, at the deadline at the latest, ok or failed; never throws.
     * Called on, and answers on, the pool's timer thread.
     */
    void ask(Question question, long deadlineNs, Consumer<Answer> then);
}
