package org.sage.flink;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadFactory;

/**
 * Single requests to the pool's endpoints over kept-alive HTTP/1.1 connections; does not retry.
 *
 * <p>HTTP/1.1, because the engines behind the pool speak nothing else and an upgrade costs a round
 * trip. Its two threads serve any number of requests in flight.
 */
final class Http implements AutoCloseable {

    static final long BYTES_MAX = 64L << 20;

    private static final int THREADS = 2;
    private static final Duration CONNECT_TIMEOUT = Duration.ofSeconds(5);

    private final List<String> urls;
    private final String path;
    private final Optional<String> key;
    private final ExecutorService executor;
    private final HttpClient client;
    private final Set<CompletableFuture<?>> live = ConcurrentHashMap.newKeySet();

    Http(List<String> urls, String path, Optional<String> key, ThreadFactory threads) {
        this.urls = urls;
        this.path = path;
        this.key = key;
        this.executor = Executors.newFixedThreadPool(THREADS, threads);
        this.client =
                HttpClient.newBuilder()
                        .version(HttpClient.Version.HTTP_1_1)
                        .connectTimeout(CONNECT_TIMEOUT)
                        .executor(executor)
                        .build();
    }

    /** The endpoint of this turn. */
    String url(int turn) {
        return urls.get(Math.floorMod(turn, urls.size())) + path;
    }

    /**
     * The response to a POST of JSON; cancelling the future aborts the exchange, so that the engine
     * behind it can stop its work.
     *
     * @param requestId null for none
     * @throws IllegalArgumentException when the id cannot be a header
     */
    CompletableFuture<HttpResponse<Optional<byte[]>>> post(
            String url, byte[] body, String requestId) {
        HttpRequest.Builder request =
                HttpRequest.newBuilder(URI.create(url))
                        .header("Content-Type", "application/json")
                        .POST(HttpRequest.BodyPublishers.ofByteArray(body));
        key.ifPresent(found -> request.header("Authorization", "Bearer " + found));
        if (requestId != null && !requestId.isEmpty()) {
            request.header("X-Request-Id", requestId).header("Idempotency-Key", requestId);
        }
        CompletableFuture<HttpResponse<Optional<byte[]>>> sent =
                client.sendAsync(request.build(), info -> new CappedBody(BYTES_MAX));
        live.add(sent);
        sent.whenComplete((response, error) -> live.remove(sent));
        return sent;
    }

    /** Aborts what is in flight. */
    @Override
    public void close() {
        live.forEach(sent -> sent.cancel(true));
        // Not shutdownNow: the client's own clean-up after the cancellations runs there.
        executor.shutdown();
    }
}
