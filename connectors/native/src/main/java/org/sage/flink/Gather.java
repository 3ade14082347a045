package org.sage.flink;

import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * Texts of any records in flight, gathered into embedding requests.
 *
 * <p>A request goes out when {@code items_max} texts wait or the oldest has waited {@code
 * linger_ms}, and fewer than {@code requests_max} are in flight: while the pool is busy texts go on
 * gathering, so batches fill under load and stay small in a trickle. A request that is refused for
 * its content (400, 413, 422) is halved and sent again, so that only the guilty text fails.
 */
final class Gather implements Asker {

    private static final Set<Integer> REFUSED_FOR_CONTENT = Set.of(400, 413, 422);

    private final Pool pool;
    private final Deque<Text> waiting = new ArrayDeque<>();
    private final Deque<List<Text>> halves = new ArrayDeque<>();
    private int inFlight;
    private Future<?> linger;

    Gather(Pool pool) {
        this.pool = pool;
    }

    @Override
    public void ask(Question question, long deadlineNs, Consumer<Answer> then) {
        Text text =
                new Text(
                        new String(question.body(), StandardCharsets.UTF_8),
                        System.nanoTime(),
                        deadlineNs,
                        then);
        text.deadline =
                pool.after(
                        deadlineNs - System.nanoTime(), TimeUnit.NANOSECONDS, () -> expire(text));
        waiting.add(text);
        pump();
    }

    private void expire(Text text) {
        waiting.remove(text);
        String lastReason = text.request == null ? "" : text.request.lastReason();
        text.end(pool.outOfTime(text.attempts(), lastReason));
    }

    private void pump() {
        while (inFlight < pool.config().requestsMax()) {
            List<Text> next = next();
            if (next.isEmpty()) {
                return;
            }
            send(next);
        }
    }

    /** The texts of the next request; none when it is not time for one. */
    private List<Text> next() {
        while (!halves.isEmpty()) {
            List<Text> open = halves.poll().stream().filter(text -> !text.ended).toList();
            if (!open.isEmpty()) {
                return open;
            }
        }
        int itemsMax = pool.config().itemsMax();
        if (waiting.isEmpty() || (waiting.size() < itemsMax && !lingered())) {
            return List.of();
        }
        List<Text> next = new ArrayList<>(itemsMax);
        while (next.size() < itemsMax && !waiting.isEmpty()) {
            next.add(waiting.poll());
        }
        return next;
    }

    private boolean lingered() {
        long lingerNs = TimeUnit.MILLISECONDS.toNanos(pool.config().lingerMs());
        long leftNs = waiting.peek().arrivedNs + lingerNs - System.nanoTime();
        if (leftNs <= 0) {
            return true;
        }
        if (linger == null || linger.isDone()) {
            linger = pool.after(leftNs, TimeUnit.NANOSECONDS, this::lingerOver);
        }
        return false;
    }

    private void lingerOver() {
        linger = null; // it runs, so isDone does not say so yet
        pump();
    }

    private void send(List<Text> texts) {
        inFlight++;
        pool.metrics().gatheredItems().update(texts.size());
        byte[] body =
                Vectors.request(
                        pool.config().model(), texts.stream().map(text -> text.content).toList());
        // The texts' own deadlines answer them; the request ends with the last.
        long deadlineNs = texts.get(texts.size() - 1).deadlineNs;
        PoolRequest request =
                new PoolRequest(pool, body, null, deadlineNs, answer -> settle(texts, answer));
        texts.forEach(text -> text.request = request);
        request.start();
    }

    private void settle(List<Text> texts, Answer answer) {
        inFlight--;
        texts.forEach(Text::countAttempts);
        if (answer.isOk()) {
            place(texts, answer);
        } else if (REFUSED_FOR_CONTENT.contains(answer.status()) && texts.size() > 1) {
            int middle = texts.size() / 2;
            halves.add(texts.subList(0, middle));
            halves.add(texts.subList(middle, texts.size()));
        } else {
            for (Text text : texts) {
                text.end(
                        new Answer(
                                answer.status(),
                                text.attempts(),
                                answer.reason(),
                                Answer.NOTHING));
            }
        }
        // Not at once: a request that ends while it starts would come back here within pump().
        pool.run(this::pump);
    }

    private static void place(List<Text> texts, Answer answer) {
        Vectors.Slot[] slots = Vectors.read(answer.body(), texts.size());
        for (int i = 0; i < slots.length; i++) {
            Text text = texts.get(i);
            Vectors.Slot slot = slots[i];
            text.end(
                    slot.reason().isEmpty()
                            ? Answer.ok(answer.status(), text.attempts(), slot.vector())
                            : Answer.failed(0, text.attempts(), slot.reason()));
        }
    }

    /** A text on its way; ends once. */
    private static final class Text {
        final String content;
        final long arrivedNs;
        final long deadlineNs;
        final Consumer<Answer> then;
        Future<?> deadline;
        PoolRequest request;
        int attemptsBefore;
        boolean ended;

        Text(String content, long arrivedNs, long deadlineNs, Consumer<Answer> then) {
            this.content = content;
            this.arrivedNs = arrivedNs;
            this.deadlineNs = deadlineNs;
            this.then = then;
        }

        /** Requests that held this text, of the halves before it too. */
        int attempts() {
            return attemptsBefore + (request == null ? 0 : request.attempts());
        }

        void countAttempts() {
            attemptsBefore = attempts();
            request = null;
        }

        void end(Answer answer) {
            if (ended) {
                return;
            }
            ended = true;
            deadline.cancel(false);
            then.accept(answer);
        }
    }
}
