package org.sage.flink;

import java.util.function.Consumer;

/** A request a question: the body as it stands, under the question's own headers. */
record Post(Pool pool) implements Asker {

    @Override
    public void ask(Question question, long deadlineNs, Consumer<Answer> then) {
        PoolRequest.Asked asked =
                new PoolRequest.Asked(
                        question.body(),
                        question.headers(),
                        deadlineNs,
                        pool.config().attemptsMax(),
                        -1);
        new PoolRequest(pool, asked, this::check, then).start();
    }

    private String check(byte[] body) {
        Generated generated = Generated.read(body);
        pool.metrics().tokensIn().inc(generated.tokensIn());
        pool.metrics().tokensOut().inc(generated.tokensOut());
        return generated.reason();
    }
}
