package org.sage.flink;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;

/** Texts that one request of {@link Gather} asks about. */
final class Batch {

    private static final int ID_BYTES = 16;

    final List<Text> texts;
    final long generation;
    final int attemptsMax;
    final int elsewhere;

    PoolRequest request;
    Vectors.Page page;
    Future<?> doubt = CompletableFuture.completedFuture(null);
    int doubts;
    boolean released;
    boolean halved;

    /**
     * @param generation grows with each request made; the halves of one have the same
     * @param elsewhere see {@link PoolRequest.Asked}, as {@code attemptsMax}
     */
    Batch(List<Text> texts, long generation, int attemptsMax, int elsewhere) {
        this.texts = texts;
        this.generation = generation;
        this.attemptsMax = attemptsMax;
        this.elsewhere = elsewhere;
    }

    /** These texts of it, to be asked again where it was not. */
    Batch again(List<Text> some, long made, int attempts) {
        return new Batch(some, made, attempts, request.url());
    }

    List<Text> open() {
        return texts.stream().filter(text -> !text.ended).toList();
    }

    long tokens() {
        return texts.stream().mapToLong(Text::tokens).sum();
    }

    List<String> contents() {
        return texts.stream()
                .map(text -> new String(text.question.body(), StandardCharsets.UTF_8))
                .toList();
    }

    long lastDeadlineNs() {
        long last = texts.get(0).deadlineNs;
        for (Text text : texts) {
            last = text.deadlineNs - last > 0 ? text.deadlineNs : last;
        }
        return last;
    }

    /** A {@link PoolRequest.Check} that keeps what it reads. */
    String read(byte[] body) {
        page = Vectors.read(body, texts.size());
        return page.reason();
    }

    /**
     * A lone text's own; else the tenant, job and priority that all share, the earliest deadline, and
     * an id made of the texts' ids: the same when the same texts are asked again together.
     */
    Map<String, String> headers() {
        Question first = texts.get(0).question;
        if (texts.size() == 1) {
            return first.headers();
        }
        String id = id();
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put(Question.REQUEST_ID, id);
        headers.put("idempotency-key", id);
        headers.put("traceparent", "00-" + id + "-" + id.substring(0, ID_BYTES) + "-00");
        for (String shared : List.of(Question.TENANT, Question.JOB, Question.PRIORITY)) {
            if (first.headers().containsKey(shared)) {
                headers.put(shared, first.headers().get(shared));
            }
        }
        long deadlineMs =
                texts.stream().mapToLong(text -> text.question.deadlineMs()).min().orElseThrow();
        if (deadlineMs < Long.MAX_VALUE) {
            headers.put(Question.DEADLINE, Long.toString(deadlineMs));
        }
        return headers;
    }

    private String id() {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            for (Text text : texts) {
                digest.update(text.question.requestId().getBytes(StandardCharsets.UTF_8));
                digest.update((byte) '\n');
            }
            return HexFormat.of().formatHex(digest.digest(), 0, ID_BYTES);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java platform has it
        }
    }
}
