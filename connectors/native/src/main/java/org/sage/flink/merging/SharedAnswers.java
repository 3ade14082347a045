package org.sage.flink.merging;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.sage.flink.pool.MergingConfig;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/**
 * The requests of the last {@code withinMs} that were sent, with their answer or who waits for it.
 * Bounded by time, count and bytes. A request is compared with these alone, not with those that
 * shared an answer: so a chain of near-equal requests does not drift away from the first one. The
 * Python twin is {@code sage_flink/flow/merging/answers.py}.
 */
final class SharedAnswers {

    /** As in Python: a similarity this much below the threshold reaches it. */
    private static final double ROUNDING = 1e-6;

    private final MergingConfig settings;
    private final long bytesMax;
    private final LinkedHashSet<Answer> oldestFirst = new LinkedHashSet<>();
    private final Map<String, List<Answer>> groups = new HashMap<>();
    private long bytes;

    SharedAnswers(MergingConfig settings, long bytesMax) {
        this.settings = settings;
        this.bytesMax = bytesMax;
    }

    /** The nearest answer of the request's group that is near enough, the oldest of equal ones. */
    Answer find(CallRequest request, long nowNs) {
        forget(nowNs);
        Answer nearest = null;
        double best = settings.threshold() - ROUNDING;
        float[] vector = request.vector();
        for (Answer answer : groups.getOrDefault(request.group(), List.of())) {
            double found = similarity(vector, answer.vector);
            if (found > best || (nearest == null && found == best)) {
                nearest = answer;
                best = found;
            }
        }
        return nearest;
    }

    /** The request is sent now. */
    Answer add(CallRequest request, long nowNs) {
        long untilNs = nowNs + settings.withinMs() * 1_000_000;
        Answer answer = new Answer(request.group(), request.vector(), untilNs);
        oldestFirst.add(answer);
        groups.computeIfAbsent(answer.group, group -> new ArrayList<>(1)).add(answer);
        forget(nowNs);
        return answer;
    }

    /** The result of a request that was added: kept where it is an answer, and passed on. */
    void settle(Answer answer, CallResult result) {
        answer.result = result;
        if (!result.isOk()) {
            remove(answer);
        } else if (oldestFirst.contains(answer)) {
            bytes += result.body().length;
        }
        List<Consumer<CallResult>> waiting = answer.waiting;
        answer.waiting = List.of();
        waiting.forEach(callback -> callback.accept(result));
    }

    int size() {
        return oldestFirst.size();
    }

    private void forget(long nowNs) {
        while (!oldestFirst.isEmpty()) {
            Answer oldest = oldestFirst.iterator().next();
            boolean fits = oldestFirst.size() <= settings.answersMax() && bytes <= bytesMax;
            if (fits && oldest.untilNs - nowNs > 0) {
                return;
            }
            remove(oldest);
        }
    }

    private void remove(Answer answer) {
        if (!oldestFirst.remove(answer)) {
            return;
        }
        List<Answer> group = groups.get(answer.group);
        group.remove(answer);
        if (group.isEmpty()) {
            groups.remove(answer.group);
        }
        if (answer.result != null && answer.result.isOk()) {
            bytes -= answer.result.body().length;
        }
    }

    private static double similarity(float[] one, float[] other) {
        double sum = 0;
        for (int i = 0; i < one.length; i++) {
            sum += (double) one[i] * other[i];
        }
        return sum;
    }

    /** A request that was sent. */
    static final class Answer {

        private final String group;
        private final float[] vector;
        private final long untilNs;
        private CallResult result;
        private List<Consumer<CallResult>> waiting = new ArrayList<>(1);

        private Answer(String group, float[] vector, long untilNs) {
            this.group = group;
            this.vector = vector;
            this.untilNs = untilNs;
        }

        /** Calls back with the result, now or when there is one. */
        void whenSettled(Consumer<CallResult> callback) {
            if (result == null) {
                waiting.add(callback);
            } else {
                callback.accept(result);
            }
        }
    }
}
