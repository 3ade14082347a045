package org.sage.flink.pool;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.flink.shaded.netty4.io.netty.channel.EventLoopGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.MultiThreadIoEventLoopGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.nio.NioIoHandler;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.sage.flink.testing.FakePool;
import org.sage.flink.testing.RawServer;

@Timeout(30)
class PoolHttpClientTest {

    private static final EventLoopGroup LOOPS =
            new MultiThreadIoEventLoopGroup(1, NioIoHandler.newFactory());
    private static final String OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

    @AfterAll
    static void stop() {
        LOOPS.shutdownGracefully(0, 1, TimeUnit.SECONDS);
    }

    @Test
    void theKeyIsSentInTheAuthorizationHeader() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "{}"));
                PoolHttpClient http = http(pool.url(), 1000)) {
            post(http, "{}");

            assertEquals("Bearer k", pool.requests.get(0).header("Authorization"));
            assertEquals("/p", pool.requests.get(0).path());
        }
    }

    @Test
    void aConnectionIsReused() throws Exception {
        try (RawServer engine = new RawServer(OK);
                PoolHttpClient http = http(engine.url(), 1000)) {
            for (int i = 0; i < 5; i++) {
                assertTrue(post(http, "{}").isOk());
            }

            assertEquals(1, engine.connections.get());
        }
    }

    @Test
    void aConnectionClosedWhileIdleIsNotAFailure() throws Exception {
        try (RawServer engine = new RawServer(OK, true);
                PoolHttpClient http = http(engine.url(), 1000)) {
            for (int i = 0; i < 20; i++) {
                assertTrue(post(http, "{}").isOk());
            }

            assertTrue(engine.connections.get() >= 20);
        }
    }

    @Test
    void aChunkedResponseAfterAnInterimOneIsReadInFull() throws Exception {
        String bytes =
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                        + "2\r\n{\"\r\n5\r\na\":1}\r\n0\r\n\r\n";
        try (RawServer engine = new RawServer(bytes);
                PoolHttpClient http = http(engine.url(), 1000)) {
            for (int i = 0; i < 2; i++) {
                HttpReply reply = post(http, "{}");

                assertTrue(reply.isOk(), reply.reason());
                assertArrayEquals("{\"a\":1}".getBytes(StandardCharsets.UTF_8), reply.body());
            }
        }
    }

    @Test
    void aBodyUpToTheLimitIsRead() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "12345"));
                PoolHttpClient http = http(pool.url(), 5);
                PoolHttpClient less = http(pool.url(), 4)) {
            assertTrue(post(http, "{}").isOk());

            assertEquals("the answer is larger than 4 bytes", post(less, "{}").reason());
        }
    }

    @Test
    void aLargeRequestAndResponseArrive() throws Exception {
        String large = "x".repeat(8 << 20);
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, request.body()));
                PoolHttpClient http = http(pool.url(), 9 << 20)) {
            assertEquals(large, new String(post(http, large).body(), StandardCharsets.UTF_8));
        }
    }

    @Test
    void abortingClosesTheConnectionWithoutACallback() throws Exception {
        try (RawServer engine = new RawServer(RawServer.SILENCE);
                PoolHttpClient http = http(engine.url(), 1000)) {
            CompletableFuture<HttpReply> result = new CompletableFuture<>();
            CompletableFuture<PoolHttpClient.Exchange> sent = new CompletableFuture<>();
            byte[] body = new byte[2];
            LOOPS.next().execute(() -> sent.complete(http.post(0, body, Map.of(), result::complete)));
            assertTrue(engine.requestArrived.await(5, TimeUnit.SECONDS));

            LOOPS.next().execute(() -> sent.join().abort());

            assertTrue(engine.clientClosed.await(1, TimeUnit.SECONDS));
            assertFalse(result.isDone());
        }
    }

    @Test
    void closingTheClientClosesConnectionsWhileTheLoopRuns() throws Exception {
        try (RawServer engine = new RawServer(RawServer.SILENCE)) {
            PoolHttpClient http = http(engine.url(), 1000);
            LOOPS.next().execute(() -> http.post(0, new byte[2], Map.of(), reply -> {}));
            assertTrue(engine.requestArrived.await(5, TimeUnit.SECONDS));

            LOOPS.next().execute(http::close);

            assertTrue(engine.clientClosed.await(1, TimeUnit.SECONDS));
        }
    }

    @Test
    void anUnknownHostIsARetryableFailure() throws Exception {
        try (PoolHttpClient http = http("http://no-such-host.invalid", 1000)) {
            HttpReply reply = post(http, "{}");

            assertEquals(
                    "no connection to http://no-such-host.invalid/p: unknown host", reply.reason());
            assertTrue(reply.isRetryable());
        }
    }

    @Test
    void aServerWithoutTlsIsAFailureWithAReason() throws Exception {
        try (RawServer engine = new RawServer(OK);
                PoolHttpClient http = http(engine.url().replace("http:", "https:"), 1000)) {
            HttpReply reply = post(http, "{}");

            String broke = "the connection to https://127.0.0.1";
            assertTrue(reply.reason().startsWith(broke), reply.reason());
            assertTrue(reply.reason().contains("SSL/TLS"), reply.reason());
        }
    }

    private static PoolHttpClient http(String url, long bytesMax) throws Exception {
        return new PoolHttpClient(LOOPS.next(), List.of(url), "/p", Optional.of("k"), "", bytesMax);
    }

    private static HttpReply post(PoolHttpClient http, String body) throws Exception {
        CompletableFuture<HttpReply> result = new CompletableFuture<>();
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        LOOPS.next().execute(() -> http.post(0, bytes, Map.of(), result::complete));
        return result.get(10, TimeUnit.SECONDS);
    }
}
