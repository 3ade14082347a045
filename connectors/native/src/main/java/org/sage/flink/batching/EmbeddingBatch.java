package org.sage.flink.batching;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import org.sage.flink.pool.RetryingRequest;
import org.sage.flink.wire.CallRequest;

/** Texts that one request of {@link EmbeddingBatcher} asks about. */
final class EmbeddingBatch {

    private static final int ID_BYTES = 16;

    final List<PendingText> texts;
    final long generation;
    final int attemptsMax;
    final int elsewhere;

    RetryingRequest request;
    EmbeddingCodec.Response page;
    Future<?> doubt = CompletableFuture.completedFuture(null);
    int doubts;
    boolean released;
    boolean halved;

    /**
     * @param generation grows with each request made; the halves of one have the same
     * @param elsewhere see {@link RetryingRequest.Spec}, as {@code attemptsMax}
     */
    EmbeddingBatch(List<PendingText> texts, long generation, int attemptsMax, int elsewhere) {
        this.texts = texts;
        this.generation = generation;
        this.attemptsMax = attemptsMax;
        this.elsewhere = elsewhere;
    }

    /** These texts of it, to be asked again where it was not. */
    EmbeddingBatch again(List<PendingText> some, long made, int attempts) {
        return new EmbeddingBatch(some, made, attempts, request.url());
    }

    List<PendingText> open() {
        return texts.stream().filter(text -> !text.ended).toList();
    }

    long tokens() {
        return texts.stream().mapToLong(PendingText::tokens).sum();
    }

    List<String> contents() {
        return texts.stream()
                .map(text -> new String(text.question.body(), StandardCharsets.UTF_8))
                .toList();
    }

    long lastDeadlineNs() {
        long last = texts.get(0).deadlineNs;
        for (PendingText text : texts) {
            last = text.deadlineNs - last > 0 ? text.deadlineNs : last;
        }
        return last;
    }

    /** A {@link RetryingRequest.Check} that keeps what it reads. */
    String read(byte[] body) {
        page = EmbeddingCodec.read(body, texts.size());
        return page.reason();
    }

    /**
     * A lone text's own; else the tenant, job and priority that all share, the earliest deadline, and
     * an id made of the texts' ids: the same when the same texts are asked again together.
     */
    Map<String, String> headers() {
        CallRequest first = texts.get(0).question;
        if (texts.size() == 1) {
            return first.headers();
        }
        String id = id();
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put(CallRequest.REQUEST_ID, id);
        headers.put("idempotency-key", id);
        headers.put("traceparent", "00-" + id + "-" + id.substring(0, ID_BYTES) + "-00");
        for (String shared : List.of(CallRequest.TENANT, CallRequest.JOB, CallRequest.PRIORITY)) {
            if (first.headers().containsKey(shared)) {
                headers.put(shared, first.headers().get(shared));
            }
        }
        long deadlineMs =
                texts.stream().mapToLong(text -> text.question.deadlineMs()).min().orElseThrow();
        if (deadlineMs < Long.MAX_VALUE) {
            headers.put(CallRequest.DEADLINE, Long.toString(deadlineMs));
        }
        return headers;
    }

    private String id() {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            for (PendingText text : texts) {
                digest.update(text.question.requestId().getBytes(StandardCharsets.UTF_8));
                digest.update((byte) '\n');
            }
            return HexFormat.of().formatHex(digest.digest(), 0, ID_BYTES);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java platform has it
        }
    }
}
