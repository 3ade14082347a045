package org.sage.flink.batching;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.EMBED;
import static org.sage.flink.testing.CallHarness.call;
import static org.sage.flink.testing.CallHarness.config;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.sage.flink.testing.CallHarness.Output;
import org.sage.flink.testing.CallHarness;
import org.sage.flink.testing.FakePool;

/** A text that cannot be embedded fails alone; the other texts of its batch succeed. */
@Timeout(30)
class EmbeddingBatcherFaultsTest {

    private static final String LINGER = ",\"linger_ms\":100,\"attempts_max\":2";

    @Test
    void aRejectedTextFailsAlone() throws Exception {
        FakePool.Response refused =
                new FakePool.Response(422, "{\"error\":{\"message\":\"input is too long\"}}");
        try (FakePool pool = new FakePool((n, request) -> unless("bad", refused, request))) {
            List<Output> outputs = call(config(pool.url(), EMBED + LINGER), "a", "bad", "c", "d");

            assertEquals(List.of(200, 422, 200, 200), outputs.stream().map(Output::status).toList());
            assertEquals("input is too long", outputs.get(1).reason());
            assertEquals(3, outputs.get(1).attempts());
            assertEquals(2, outputs.get(3).attempts());
            assertArrayEquals(FakePool.vector(1f, 1f), outputs.get(0).bytes());
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "500|{}", "502|{}", "504|{}", "0|", "200|{\"data\":[{\"inde", "200|{\"error\":{}}"
            })
    void aTextThatBreaksTheEngineFailsAlone(String response) throws Exception {
        FakePool.Response broken = response(response);
        try (FakePool pool = new FakePool((n, request) -> unless("bad", broken, request))) {
            String[] texts = {"a", "b", "c", "d", "e", "bad", "g", "h"};

            List<Output> outputs = call(config(pool.url(), EMBED + LINGER), texts);

            assertOnlyFailed(outputs, 5);
            // the whole batch twice, each half once, and the poison text alone twice
            int requests = 2 + 2 + 2 + 1 + 2;
            // a reused connection that breaks without a response is replaced once by a new one
            int most = response.startsWith("0") ? 2 * requests : requests;
            int got = pool.requests.size();
            assertTrue(requests <= got && got <= most, "requests: " + got);
            assertEquals(2 + 1 + 1 + 2, outputs.get(5).attempts());
        }
    }

    @Test
    void aTextWithATooLargeResponseFailsAlone() throws Exception {
        FakePool.Response large = new FakePool.Response(200, "x".repeat(100_000));
        try (FakePool pool = new FakePool((n, request) -> unless("bad", large, request))) {
            String more = EMBED + LINGER + ",\"answer_bytes_max\":50000";

            List<Output> outputs = call(config(pool.url(), more), "a", "bad", "c");

            assertOnlyFailed(outputs, 1);
            assertEquals("the answer is larger than 50000 bytes", outputs.get(1).reason());
        }
    }

    @Test
    void aBusyPoolFailsAllTextsWithoutARetryStorm() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(503, "{}"))) {
            List<Output> outputs = call(config(pool.url(), EMBED + LINGER), "a", "b", "c", "d");

            assertEquals(List.of(503, 503, 503, 503), outputs.stream().map(Output::status).toList());
            assertEquals(2, pool.requests.size());
        }
    }

    @Test
    void aTextThatHangsDoesNotDelayTheOthersOfItsBatch() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool =
                new FakePool(
                        (n, request) ->
                                request.texts().contains("bad")
                                        ? CallHarness.hang(never)
                                        : FakePool.embeddings(request.texts()))) {
            List<String> texts = new ArrayList<>(Collections.nCopies(31, "t"));
            texts.add(13, "bad");
            String more = EMBED + ",\"linger_ms\":100,\"timeout_ms\":4000";

            List<Output> outputs = call(config(pool.url(), more), texts.toArray(String[]::new));

            assertOnlyFailed(outputs, 13);
            assertEquals("no answer within 4000 ms", outputs.get(13).reason());
            assertTrue(pool.requests.size() <= 1 + 2 * 5, "requests: " + pool.requests.size());
        }
    }

    @Test
    void batchesThatHangDoNotDelayLaterTexts() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool =
                new FakePool(
                        (n, request) ->
                                request.texts().contains("bad")
                                        ? CallHarness.hang(never)
                                        : FakePool.embeddings(request.texts()))) {
            String[] texts = new String[20];
            for (int i = 0; i < texts.length; i++) {
                texts[i] = i < 4 ? "bad" : "good";
            }
            String more = EMBED + ",\"items_max\":1,\"requests_max\":4,\"timeout_ms\":2000";

            List<Output> outputs = call(config(pool.url(), more), texts);

            assertEquals(16, outputs.stream().filter(output -> output.reason().isEmpty()).count());
        }
    }

    @Test
    void noTextIsSentTwiceToAStuckPool() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, request) -> CallHarness.hang(never))) {
            String more = EMBED + ",\"items_max\":2,\"timeout_ms\":1000,\"requests_max\":9";

            List<Output> outputs = call(config(pool.url(), more), "a", "b", "c", "d", "e", "f");

            assertEquals(
                    List.of("no answer within 1000 ms"),
                    outputs.stream().map(Output::reason).distinct().toList());
            assertTrue(pool.requests.size() <= 9, "requests: " + pool.requests.size());
        }
    }

    @Test
    void aTextWithAnUnusableVectorIsSentOnceMoreAlone() throws Exception {
        String[] texts = {"a", "nan", "short", "d", "none", "f", "text", "twice"};
        try (FakePool pool =
                new FakePool(
                        (n, request) -> {
                            List<String> items = new ArrayList<>();
                            for (int i = 0; i < request.texts().size(); i++) {
                                items.addAll(vectors(i, request.texts().get(i)));
                            }
                            return page(items);
                        })) {
            List<Output> outputs = call(config(pool.url(), EMBED + LINGER), texts);

            assertEquals(
                    List.of(
                            "",
                            "the embedding has a number that is not finite",
                            "the embedding has dimension 1, not 2",
                            "",
                            "the answer has no embedding of this text: asked were 1, got 0",
                            "",
                            "the embedding is not base64",
                            "the answer has two embeddings of this text"),
                    outputs.stream().map(Output::reason).toList());
            assertArrayEquals(FakePool.vector(5f, 6f), outputs.get(5).bytes());
            assertEquals(2, outputs.get(1).attempts());
            assertEquals(0, outputs.get(1).status());
            assertEquals(1 + 5, pool.requests.size());
        }
    }

    @Test
    void aVectorThatIsMissingOnceIsReceivedAtTheSecondAttempt() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, request) ->
                                n > 0
                                        ? FakePool.embeddings(request.texts())
                                        : page(
                                                List.of(
                                                        FakePool.item(1, FakePool.vector(1, 1)),
                                                        FakePool.item(2, FakePool.vector(1, 1)))))) {
            List<Output> outputs = call(config(pool.url(), EMBED + LINGER), "a", "b", "c");

            assertEquals(List.of(200, 200, 200), outputs.stream().map(Output::status).toList());
            assertEquals(List.of(2, 1, 1), outputs.stream().map(Output::attempts).toList());
        }
    }

    @Test
    void tooFewVectorsWithGaplessIndexesAreNotTrusted() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, request) -> {
                            List<String> given = new ArrayList<>(request.texts());
                            given.remove("left out");
                            return FakePool.embeddings(given);
                        })) {
            String config = config(pool.url(), EMBED + LINGER);

            List<Output> outputs = call(config, "a", "left out", "ccc", "dd");

            assertOnlyFailed(outputs, 1);
            assertArrayEquals(FakePool.vector(3, 1), outputs.get(2).bytes());
            assertArrayEquals(FakePool.vector(2, 1), outputs.get(3).bytes());
        }
    }

    @Test
    void aResponseWithAnIndexOutOfRangeIsUnusable() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, request) ->
                                page(
                                        List.of(
                                                FakePool.item(0, FakePool.vector(1f)),
                                                FakePool.item(2, new byte[4]))))) {
            List<Output> outputs = call(config(pool.url(), EMBED + LINGER), "a", "b");

            for (Output output : outputs) {
                assertEquals(
                        "the answer has an embedding of index 2, asked were 1 texts",
                        output.reason());
                assertEquals(0, output.status());
            }
        }
    }

    @Test
    void aVectorOfAnotherDimensionThanConfiguredFails() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> FakePool.embeddings(request.texts()))) {
            Output output = call(config(pool.url(), EMBED + LINGER + ",\"dim\":384"), "a").get(0);

            assertEquals("the embedding has dimension 2, not 384", output.reason());
        }
    }

    @Test
    void aTextBufferedBehindABusyPoolTimesOut() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, request) -> CallHarness.hang(never))) {
            String limits = ",\"linger_ms\":0,\"requests_max\":1,\"timeout_ms\":300";

            List<Output> outputs = call(config(pool.url(), EMBED + limits), "a", "b", "c");

            assertEquals(
                    List.of("no answer within 300 ms"),
                    outputs.stream().map(Output::reason).distinct().toList());
            assertEquals(3, outputs.size());
        }
    }

    private static void assertOnlyFailed(List<Output> outputs, int poison) {
        for (int i = 0; i < outputs.size(); i++) {
            assertEquals(i != poison, outputs.get(i).reason().isEmpty(), outputs.get(i).toString());
        }
    }

    private static FakePool.Response unless(
            String bad, FakePool.Response response, FakePool.Request request) {
        if (!request.texts().contains(bad)) {
            return FakePool.embeddings(request.texts());
        }
        if (response.status() == 0) {
            throw new IllegalStateException("the connection closes");
        }
        return response;
    }

    private static FakePool.Response response(String statusAndBody) {
        int bar = statusAndBody.indexOf('|');
        return new FakePool.Response(
                Integer.parseInt(statusAndBody.substring(0, bar)), statusAndBody.substring(bar + 1));
    }

    private static FakePool.Response page(List<String> items) {
        return new FakePool.Response(200, "{\"data\":[" + String.join(",", items) + "]}");
    }

    private static List<String> vectors(int index, String text) {
        return switch (text) {
            case "nan" -> List.of(FakePool.item(index, FakePool.vector(Float.NaN, 2f)));
            case "short" -> List.of(FakePool.item(index, FakePool.vector(1f)));
            case "none" -> List.of();
            case "text" -> List.of("{\"index\":" + index + ",\"embedding\":\"?\"}");
            case "f" -> List.of("{\"index\":" + index + ",\"embedding\":[5, 6]}");
            case "twice" ->
                    Collections.nCopies(2, FakePool.item(index, FakePool.vector(7f, 7f)));
            default -> List.of(FakePool.item(index, FakePool.vector(1f, 2f)));
        };
    }
}
