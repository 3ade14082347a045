package org.sage.flink.pool;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.ask;
import static org.sage.flink.testing.CallHarness.config;
import static org.sage.flink.testing.CallHarness.nowhere;

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

/** What is asked again, how often, where, and what is said when it is given up. */
@Timeout(30)
class RetryingRequestTest {

    @ParameterizedTest
    @ValueSource(ints = {408, 429, 500, 502, 503, 504})
    void aPassingErrorIsAskedAgain(int status) throws Exception {
        try (FakePool pool =
                new FakePool((n, asked) -> new FakePool.Response(n == 0 ? status : 200, "{}"))) {
            Output read = ask(config(pool.url(), ""), "{}").get(0);

            assertEquals(new Output("c0", 200, 2, "", "{}"), read);
            assertEquals("1", pool.asked.get(0).header("X-Sage-Attempt"));
            assertEquals("2", pool.asked.get(1).header("X-Sage-Attempt"));
            assertEquals("id0", pool.asked.get(1).header("X-Request-Id"));
        }
    }

    @Test
    void retryAfterIsHonoured() throws Exception {
        FakePool.Response wait = new FakePool.Response(429, "{}", Map.of("Retry-After", "1"));
        try (FakePool pool =
                new FakePool((n, asked) -> n == 0 ? wait : new FakePool.Response(200, "{}"))) {
            Output read = ask(config(pool.url(), ""), "{}").get(0);

            assertEquals(2, read.attempts());
            assertTrue(pool.asked.get(1).atMs() - pool.asked.get(0).atMs() >= 990);
        }
    }

    @Test
    void aRetryAfterBeyondTheBudgetEndsTheCallAtOnce() throws Exception {
        FakePool.Response wait = new FakePool.Response(503, "", Map.of("Retry-After", "60"));
        try (FakePool pool = new FakePool((n, asked) -> wait)) {
            Output read = ask(config(pool.url(), "\"timeout_ms\":5000"), "{}").get(0);

            assertEquals(new Output("c0", 503, 1, "HTTP 503", ""), read);
        }
    }

    @Test
    void aRefusalIsFinalAndKeepsThePoolsWords() throws Exception {
        String body = "{\"error\":{\"message\":\"prompt is too long\"}}";
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(400, body))) {
            Output read = ask(config(pool.url(), ""), "{}").get(0);

            assertEquals(new Output("c0", 400, 1, "prompt is too long", body), read);
        }
    }

    @Test
    void attemptsHaveALimit() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(500, "no JSON"))) {
            Output read = ask(config(pool.url(), "\"attempts_max\":3"), "{}").get(0);

            assertEquals(new Output("c0", 500, 3, "HTTP 500", "no JSON"), read);
        }
    }

    @Test
    void aPoolThatIsAwayToTheEndIsAnEnvelopeToo() throws Exception {
        String limits = "\"attempts_max\":1,\"timeout_ms\":1000";

        Output read = ask(config(nowhere(), limits), "{}").get(0);

        assertEquals(0, read.status());
        assertTrue(read.attempts() > 1, read.toString());
        assertTrue(read.reason().contains("no connection to http://127.0.0.1"), read.reason());
    }

    @ParameterizedTest
    @ValueSource(strings = {"\"mode\":\"post\"", CallHarness.EMBED})
    void aPoolThatComesBackInTimeIsWaitedForWhateverTheAttempts(String more) throws Exception {
        int port = FakePool.freePort();
        CompletableFuture<FakePool> back =
                CompletableFuture.supplyAsync(
                        () -> new FakePool(port, (n, asked) -> FakePool.embedded(asked.texts())),
                        CompletableFuture.delayedExecutor(2, TimeUnit.SECONDS));
        String config = config("http://127.0.0.1:" + port, more + ",\"attempts_max\":1");

        List<Output> reads = ask(config, "{}", "{}");

        try (FakePool pool = back.join()) {
            assertEquals(List.of("", ""), reads.stream().map(Output::reason).toList());
            assertTrue(pool.asked.size() <= 2);
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
    void anAnswerOf200ThatIsNoneIsAskedAgainAndThenFails(String body, String reason)
            throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, body))) {
            Output read = ask(config(pool.url(), "\"attempts_max\":2"), "{}").get(0);

            assertEquals(new Output("c0", 0, 2, reason, ""), read);
        }
    }

    @Test
    void anErrorThatIsNullIsNone() throws Exception {
        String body = "{\"error\":null,\"choices\":[]}";
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, body))) {
            assertEquals(new Output("c0", 200, 1, "", body), ask(config(pool.url(), ""), "{}").get(0));
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
    void anAnswerThatIsCutOffIsAskedAgainAndThenFails(String bytes) throws Exception {
        try (RawServer engine = new RawServer(bytes, true)) {
            Output read = ask(config(engine.url(), "\"attempts_max\":2"), "{}").get(0);

            assertEquals(0, read.status());
            assertEquals(2, read.attempts());
            assertTrue(read.reason().startsWith("the connection to " + engine.url()), read.reason());
        }
    }

    @Test
    void anAnswerAboveTheCapFailsAtOnceAndIsNotRead() throws Exception {
        String large = "{\"a\":\"" + "x".repeat(5_000_000) + "\"}";
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, large))) {
            Output read = ask(config(pool.url(), "\"answer_bytes_max\":1000000"), "{}").get(0);

            assertEquals(
                    new Output("c0", 0, 1, "the answer is larger than 1000000 bytes", ""), read);
        }
    }

    @Test
    void aConnectionThatBreaksIsAskedAgainAtTheNextUrl() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, "{}"))) {
            Output read = ask(config(List.of(nowhere(), pool.url()), ""), "{}").get(0);

            assertEquals(new Output("c0", 200, 2, "", "{}"), read);
        }
    }

    @Test
    void callsSpreadOverTheUrls() throws Exception {
        try (FakePool one = new FakePool((n, asked) -> new FakePool.Response(200, "{}"));
                FakePool two = new FakePool((n, asked) -> new FakePool.Response(200, "{}"))) {
            String[] bodies = new String[20];
            Arrays.fill(bodies, "{}");

            ask(config(List.of(one.url(), two.url()), ""), bodies);

            assertEquals(10, one.asked.size());
            assertEquals(10, two.asked.size());
        }
    }

    @Test
    void aUrlThatFailedIsPutAside() throws Exception {
        try (FakePool sick = new FakePool((n, asked) -> new FakePool.Response(503, "{}"));
                FakePool well = new FakePool((n, asked) -> new FakePool.Response(200, "{}"))) {
            String[] bodies = new String[40];
            Arrays.fill(bodies, "{}");
            String more = "\"capacity\":1,\"ordered\":true";

            List<Output> reads = ask(config(List.of(sick.url(), well.url()), more), bodies);

            assertEquals(40, reads.stream().filter(read -> read.status() == 200).count());
            // the harness lets all in at once: those under way when the first failure came
            assertTrue(sick.asked.size() <= 25, "asked in vain: " + sick.asked.size());
            assertTrue(well.asked.size() >= 40);
        }
    }
}
