package org.sage.flink;

import java.util.function.Consumer;

/** A request a question: the body as it stands, under the question's request id. */
record Post(Pool pool) implements Asker {

    @Override
    public void ask(Question question, long deadlineNs, Consumer<Answer> then) {
        new PoolRequest(pool, question.body(), question.requestId(), deadlineNs, then).start();
    }
}
