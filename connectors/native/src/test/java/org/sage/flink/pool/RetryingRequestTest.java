package org.sage.flink.pool;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.call;
import static org.sage.flink.testing.CallHarness.config;
import static org.sage.flink.testing.CallHarness.unusedUrl;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.sage.flink.testing.CallHarness.Output;
import org.sage.flink.testing.CallHarness;
import org.sage.flink.testing.FakePool;
import org.sage.flink.testing.RawServer;

/** Which failures are retried, how often, at which endpoint, and the reason at the end. */
@Timeout(30)
class RetryingRequestTest {

    @ParameterizedTest
    @ValueSource(ints = {408, 429, 500, 502, 503, 504})
    void aTemporaryErrorIsRetried(int status) throws Exception {
        try (FakePool pool =
                new FakePool((n, request) -> new FakePool.Response(n == 0 ? status : 200, "{}"))) {
            Output output = call(config(pool.url(), ""), "{}").get(0);

            assertEquals(new Output("c0", 200, 2, "", "{}"), output);
            assertEquals("1", pool.requests.get(0).header("X-Sage-Attempt"));
            assertEquals("2", pool.requests.get(1).header("X-Sage-Attempt"));
            assertEquals("id0", pool.requests.get(1).header("X-Request-Id"));
        }
    }

    @Test
    void retryAfterIsHonoured() throws Exception {
        FakePool.Response wait = new FakePool.Response(429, "{}", Map.of("Retry-After", "1"));
        try (FakePool pool =
                new FakePool((n, request) -> n == 0 ? wait : new FakePool.Response(200, "{}"))) {
            Output output = call(config(pool.url(), ""), "{}").get(0);

            assertEquals(2, output.attempts());
            assertTrue(pool.requests.get(1).atMs() - pool.requests.get(0).atMs() >= 990);
        }
    }

    @Test
    void aRetryAfterBeyondTheBudgetEndsTheCallImmediately() throws Exception {
        FakePool.Response wait = new FakePool.Response(503, "", Map.of("Retry-After", "60"));
        try (FakePool pool = new FakePool((n, request) -> wait)) {
            Output output = call(config(pool.url(), "\"timeout_ms\":5000"), "{}").get(0);

            assertEquals(new Output("c0", 503, 1, "HTTP 503", ""), output);
        }
    }

    @Test
    void aRejectionIsFinalAndKeepsThePoolsMessage() throws Exception {
        String body = "{\"error\":{\"message\":\"prompt is too long\"}}";
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(400, body))) {
            Output output = call(config(pool.url(), ""), "{}").get(0);

            assertEquals(new Output("c0", 400, 1, "prompt is too long", body), output);
        }
    }

    @Test
    void attemptsHaveALimit() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(500, "no JSON"))) {
            Output output = call(config(pool.url(), "\"attempts_max\":3"), "{}").get(0);

            assertEquals(new Output("c0", 500, 3, "HTTP 500", "no JSON"), output);
        }
    }

    @Test
    void anUnreachablePoolIsAResultWithAReason() throws Exception {
        String limits = "\"attempts_max\":1,\"timeout_ms\":1000";

        Output output = call(config(unusedUrl(), limits), "{}").get(0);

        assertEquals(0, output.status());
        assertTrue(output.attempts() > 1, output.toString());
        assertTrue(output.reason().contains("no connection to http://127.0.0.1"), output.reason());
    }

    @ParameterizedTest
    @ValueSource(strings = {"\"mode\":\"post\"", CallHarness.EMBED})
    void callsWaitForAnUnreachablePoolBeyondTheirAttempts(String more) throws Exception {
        int port = FakePool.freePort();
        CompletableFuture<FakePool> back =
                CompletableFuture.supplyAsync(
                        () -> new FakePool(port, (n, request) -> FakePool.embeddings(request.texts())),
                        CompletableFuture.delayedExecutor(2, TimeUnit.SECONDS));
        String config = config("http://127.0.0.1:" + port, more + ",\"attempts_max\":1");

        List<Output> outputs = call(config, "{}", "{}");

        try (FakePool pool = back.join()) {
            assertEquals(List.of("", ""), outputs.stream().map(Output::reason).toList());
            assertTrue(pool.requests.size() <= 2);
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "{\"choices\":[{\"mess | the answer is not JSON, or not all of it",
                "[1] | the answer is not a JSON object",
                "<html> | the answer is not JSON, or not all of it",
                "{\"error\":{\"message\":\"CUDA\"}} | the answer is an error: CUDA",
                "{\"error\":\"no room\"} | the answer is an error: no room",
                "{\"error\":{}} | the answer is an error",
                "{} {} | the answer is more than one JSON object",
            })
    void anUnusableResponseOfStatus200IsRetriedAndThenFails(String body, String reason)
            throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, body))) {
            Output output = call(config(pool.url(), "\"attempts_max\":2"), "{}").get(0);

            assertEquals(new Output("c0", 0, 2, reason, ""), output);
        }
    }

    @Test
    void aNullErrorIsNotAFailure() throws Exception {
        String body = "{\"error\":null,\"choices\":[]}";
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, body))) {
            assertEquals(new Output("c0", 200, 1, "", body), call(config(pool.url(), ""), "{}").get(0));
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"a\":",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n",
                "HTTP/1.1 200",
                "SSH-2.0-OpenSSH\r\n",
                ""
            })
    void aTruncatedResponseIsRetriedAndThenFails(String bytes) throws Exception {
        try (RawServer engine = new RawServer(bytes, true)) {
            Output output = call(config(engine.url(), "\"attempts_max\":2"), "{}").get(0);

            assertEquals(0, output.status());
            assertEquals(2, output.attempts());
            assertTrue(output.reason().startsWith("the connection to " + engine.url()), output.reason());
        }
    }

    @Test
    void aResponseAboveTheLimitFailsImmediatelyAndIsNotRead() throws Exception {
        String large = "{\"a\":\"" + "x".repeat(5_000_000) + "\"}";
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, large))) {
            Output output = call(config(pool.url(), "\"answer_bytes_max\":1000000"), "{}").get(0);

            assertEquals(
                    new Output("c0", 0, 1, "the answer is larger than 1000000 bytes", ""), output);
        }
    }

    @Test
    void aBrokenConnectionIsRetriedAtTheNextEndpoint() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "{}"))) {
            Output output = call(config(List.of(unusedUrl(), pool.url()), ""), "{}").get(0);

            assertEquals(new Output("c0", 200, 2, "", "{}"), output);
        }
    }

    @Test
    void callsAreSpreadOverTheEndpoints() throws Exception {
        try (FakePool one = new FakePool((n, request) -> new FakePool.Response(200, "{}"));
                FakePool two = new FakePool((n, request) -> new FakePool.Response(200, "{}"))) {
            String[] bodies = new String[20];
            Arrays.fill(bodies, "{}");

            call(config(List.of(one.url(), two.url()), ""), bodies);

            assertEquals(10, one.requests.size());
            assertEquals(10, two.requests.size());
        }
    }

    @Test
    void anEndpointThatFailedIsSuspended() throws Exception {
        try (FakePool sick = new FakePool((n, request) -> new FakePool.Response(503, "{}"));
                FakePool well = new FakePool((n, request) -> new FakePool.Response(200, "{}"))) {
            String[] bodies = new String[40];
            Arrays.fill(bodies, "{}");
            String more = "\"capacity\":1,\"ordered\":true";

            List<Output> outputs = call(config(List.of(sick.url(), well.url()), more), bodies);

            assertEquals(40, outputs.stream().filter(output -> output.status() == 200).count());
            // the harness sends all requests together: some are in flight at the first failure
            assertTrue(sick.requests.size() <= 25, "requests to the failing endpoint: " + sick.requests.size());
            assertTrue(well.requests.size() >= 40);
        }
    }
}
