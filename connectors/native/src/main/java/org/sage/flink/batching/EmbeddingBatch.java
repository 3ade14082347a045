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
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.sage.flink.pool.HttpReply;
import org.sage.flink.pool.PoolClient;
import org.sage.flink.pool.RetryingRequest;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/**
 * The texts of one embedding request, and the state of that request: queued, in flight with or
 * without a slot, ended. It may be bisected once, before or after its end.
 */
final class EmbeddingBatch {

    /** A batch is checked after this fraction of its remaining time, and again after each check. */
    private static final int SLOW_CHECKS = 4;

    private static final long SLOW_CHECK_NS_MIN = 20_000_000L;
    private static final int ID_BYTES = 16;

    private final List<PendingText> texts;
    private final long generation;
    private final int attemptsMax;
    private final int avoidEndpoint;

    private RetryingRequest request;
    private EmbeddingCodec.Response response;
    private Future<?> slowCheck = CompletableFuture.completedFuture(null);
    private int slowChecks;
    private boolean holdsSlot;
    private boolean bisected;

    /**
     * @param generation grows with each batch; the two halves of a batch share one
     * @param attemptsMax see {@link RetryingRequest.Spec}, as for {@code avoidEndpoint}
     */
    EmbeddingBatch(List<PendingText> texts, long generation, int attemptsMax, int avoidEndpoint) {
        this.texts = texts;
        this.generation = generation;
        this.attemptsMax = attemptsMax;
        this.avoidEndpoint = avoidEndpoint;
    }

    /** A batch with only the texts that are not done, which may be empty. */
    EmbeddingBatch withoutDone() {
        return new EmbeddingBatch(open(), generation, attemptsMax, avoidEndpoint);
    }

    /** A new batch of some of these texts, to be sent to another endpoint than this one was. */
    EmbeddingBatch retry(List<PendingText> some, long newGeneration, int newAttemptsMax) {
        return new EmbeddingBatch(some, newGeneration, newAttemptsMax, request.endpoint());
    }

    List<PendingText> texts() {
        return texts;
    }

    /** The texts that are not done. */
    List<PendingText> open() {
        return texts.stream().filter(text -> !text.isDone()).toList();
    }

    boolean isSingle() {
        return texts.size() == 1;
    }

    long generation() {
        return generation;
    }

    long tokens() {
        return texts.stream().mapToLong(PendingText::tokens).sum();
    }

    /** Builds the request and occupies a slot; {@link #start} sends it. */
    void prepare(PoolClient client, Consumer<CallResult> callback) {
        RetryingRequest.Spec spec =
                new RetryingRequest.Spec(
                        EmbeddingCodec.encodeRequest(client.config().model(), contents()),
                        headers(),
                        lastDeadlineNs(),
                        attemptsMax,
                        avoidEndpoint);
        request = new RetryingRequest(client, spec, this::read, callback);
        holdsSlot = true;
        texts.forEach(text -> text.join(this));
    }

    void start() {
        request.start();
    }

    void cancel() {
        request.cancel();
    }

    int attempts() {
        return request.attempts();
    }

    /** The reply of the latest attempt. */
    HttpReply last() {
        return request.last();
    }

    /** The response, once the request has succeeded. */
    EmbeddingCodec.Response response() {
        return response;
    }

    /** Gives up the slot and the checks for slowness; true the first time. */
    boolean releaseSlot() {
        boolean released = holdsSlot;
        holdsSlot = false;
        slowCheck.cancel(false);
        return released;
    }

    /** Schedules the next check for slowness, unless too little time remains. */
    void scheduleSlowCheck(PoolClient client, Runnable check) {
        long delayNs = (lastDeadlineNs() - System.nanoTime()) / SLOW_CHECKS;
        if (delayNs >= SLOW_CHECK_NS_MIN) {
            slowCheck =
                    client.schedule(
                            delayNs,
                            TimeUnit.NANOSECONDS,
                            () -> {
                                slowChecks++;
                                check.run();
                            });
        }
    }

    int slowChecks() {
        return slowChecks;
    }

    void markBisected() {
        bisected = true;
    }

    boolean isBisected() {
        return bisected;
    }

    private List<String> contents() {
        return texts.stream()
                .map(text -> new String(text.request().body(), StandardCharsets.UTF_8))
                .toList();
    }

    private long lastDeadlineNs() {
        long last = texts.get(0).deadlineNs();
        for (PendingText text : texts) {
            last = text.deadlineNs() - last > 0 ? text.deadlineNs() : last;
        }
        return last;
    }

    /** A {@link RetryingRequest.Check} that keeps the decoded response. */
    private String read(byte[] body) {
        response = EmbeddingCodec.decodeResponse(body, texts.size());
        return response.reason();
    }

    /**
     * A single text keeps its own headers. Several texts get the tenant, job, priority and cache age
     * that they share, the earliest deadlines, and an id derived from their ids: the same id
     * whenever the same texts are sent together.
     */
    private Map<String, String> headers() {
        CallRequest first = texts.get(0).request();
        if (isSingle()) {
            return first.headers();
        }
        String id = id();
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put(CallRequest.REQUEST_ID, id);
        headers.put("idempotency-key", id);
        headers.put("traceparent", "00-" + id + "-" + id.substring(0, ID_BYTES) + "-00");
        for (String name :
                List.of(
                        CallRequest.TENANT,
                        CallRequest.JOB,
                        CallRequest.PRIORITY,
                        CallRequest.CACHE)) {
            if (first.headers().containsKey(name)) {
                headers.put(name, first.headers().get(name));
            }
        }
        for (String name : List.of(CallRequest.DEADLINE, CallRequest.SOFT_DEADLINE)) {
            long ms = texts.stream().mapToLong(text -> text.request().timeMs(name)).min().orElseThrow();
            if (ms < Long.MAX_VALUE) {
                headers.put(name, Long.toString(ms));
            }
        }
        return headers;
    }

    private String id() {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            for (PendingText text : texts) {
                digest.update(text.request().requestId().getBytes(StandardCharsets.UTF_8));
                digest.update((byte) '\n');
            }
            return HexFormat.of().formatHex(digest.digest(), 0, ID_BYTES);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java platform has it
        }
    }
}
