package org.sage.flink.batching;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.EMBED;
import static org.sage.flink.testing.CallHarness.ask;
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

/** A text that cannot be embedded fails, once and alone; the others of its request do not. */
@Timeout(30)
class EmbeddingBatcherFaultsTest {

    private static final String LINGER = ",\"linger_ms\":100,\"attempts_max\":2";

    @Test
    void aTextThatIsRefusedHarmsOnlyItself() throws Exception {
        FakePool.Response refused =
                new FakePool.Response(422, "{\"error\":{\"message\":\"input is too long\"}}");
        try (FakePool pool = new FakePool((n, asked) -> unless("bad", refused, asked))) {
            List<Output> reads = ask(config(pool.url(), EMBED + LINGER), "a", "bad", "c", "d");

            assertEquals(List.of(200, 422, 200, 200), reads.stream().map(Output::status).toList());
            assertEquals("input is too long", reads.get(1).reason());
            assertEquals(3, reads.get(1).attempts());
            assertEquals(2, reads.get(3).attempts());
            assertArrayEquals(FakePool.vector(1f, 1f), reads.get(0).bytes());
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "500|{}", "502|{}", "504|{}", "0|", "200|{\"data\":[{\"inde", "200|{\"error\":{}}"
            })
    void aTextThatBreaksTheEngineHarmsOnlyItself(String said) throws Exception {
        FakePool.Response broken = said(said);
        try (FakePool pool = new FakePool((n, asked) -> unless("bad", broken, asked))) {
            String[] texts = {"a", "b", "c", "d", "e", "bad", "g", "h"};

            List<Output> reads = ask(config(pool.url(), EMBED + LINGER), texts);

            assertOnlyFailed(reads, 5);
            // all of them twice, their halves once each, and the guilty one alone twice
            int requests = 2 + 2 + 2 + 1 + 2;
            // a kept connection that breaks without a word is tried once more on a new one
            int most = said.startsWith("0") ? 2 * requests : requests;
            int got = pool.asked.size();
            assertTrue(requests <= got && got <= most, "requests: " + got);
            assertEquals(2 + 1 + 1 + 2, reads.get(5).attempts());
        }
    }

    @Test
    void aTextWhoseAnswerIsTooLargeHarmsOnlyItself() throws Exception {
        FakePool.Response large = new FakePool.Response(200, "x".repeat(100_000));
        try (FakePool pool = new FakePool((n, asked) -> unless("bad", large, asked))) {
            String more = EMBED + LINGER + ",\"answer_bytes_max\":50000";

            List<Output> reads = ask(config(pool.url(), more), "a", "bad", "c");

            assertOnlyFailed(reads, 1);
            assertEquals("the answer is larger than 50000 bytes", reads.get(1).reason());
        }
    }

    @Test
    void aPoolThatIsBusyFailsAllItsTextsWithoutAStorm() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(503, "{}"))) {
            List<Output> reads = ask(config(pool.url(), EMBED + LINGER), "a", "b", "c", "d");

            assertEquals(List.of(503, 503, 503, 503), reads.stream().map(Output::status).toList());
            assertEquals(2, pool.asked.size());
        }
    }

    @Test
    void aTextThatHangsDoesNotHoldUpTheOthersOfItsRequest() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool =
                new FakePool(
                        (n, asked) ->
                                asked.texts().contains("bad")
                                        ? CallHarness.hang(never)
                                        : FakePool.embedded(asked.texts()))) {
            List<String> texts = new ArrayList<>(Collections.nCopies(31, "t"));
            texts.add(13, "bad");
            String more = EMBED + ",\"linger_ms\":100,\"timeout_ms\":4000";

            List<Output> reads = ask(config(pool.url(), more), texts.toArray(String[]::new));

            assertOnlyFailed(reads, 13);
            assertEquals("no answer within 4000 ms", reads.get(13).reason());
            assertTrue(pool.asked.size() <= 1 + 2 * 5, "requests: " + pool.asked.size());
        }
    }

    @Test
    void requestsThatAllHangHoldUpNoLaterText() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool =
                new FakePool(
                        (n, asked) ->
                                asked.texts().contains("bad")
                                        ? CallHarness.hang(never)
                                        : FakePool.embedded(asked.texts()))) {
            String[] texts = new String[20];
            for (int i = 0; i < texts.length; i++) {
                texts[i] = i < 4 ? "bad" : "good";
            }
            String more = EMBED + ",\"items_max\":1,\"requests_max\":4,\"timeout_ms\":2000";

            List<Output> reads = ask(config(pool.url(), more), texts);

            assertEquals(16, reads.stream().filter(read -> read.reason().isEmpty()).count());
        }
    }

    @Test
    void aPoolThatStandsStillIsNotAskedTwice() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, asked) -> CallHarness.hang(never))) {
            String more = EMBED + ",\"items_max\":2,\"timeout_ms\":1000,\"requests_max\":9";

            List<Output> reads = ask(config(pool.url(), more), "a", "b", "c", "d", "e", "f");

            assertEquals(
                    List.of("no answer within 1000 ms"),
                    reads.stream().map(Output::reason).distinct().toList());
            assertTrue(pool.asked.size() <= 9, "requests: " + pool.asked.size());
        }
    }

    @Test
    void aFaultyVectorIsAskedOnceMoreAloneAndHarmsOnlyItsText() throws Exception {
        String[] texts = {"a", "nan", "short", "d", "none", "f", "text", "twice"};
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> {
                            List<String> items = new ArrayList<>();
                            for (int i = 0; i < asked.texts().size(); i++) {
                                items.addAll(vectors(i, asked.texts().get(i)));
                            }
                            return page(items);
                        })) {
            List<Output> reads = ask(config(pool.url(), EMBED + LINGER), texts);

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
                    reads.stream().map(Output::reason).toList());
            assertArrayEquals(FakePool.vector(5f, 6f), reads.get(5).bytes());
            assertEquals(2, reads.get(1).attempts());
            assertEquals(0, reads.get(1).status());
            assertEquals(1 + 5, pool.asked.size());
        }
    }

    @Test
    void aVectorThatIsFaultyOnceIsHadTheSecondTime() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, asked) ->
                                n > 0
                                        ? FakePool.embedded(asked.texts())
                                        : page(
                                                List.of(
                                                        FakePool.item(1, FakePool.vector(1, 1)),
                                                        FakePool.item(2, FakePool.vector(1, 1)))))) {
            List<Output> reads = ask(config(pool.url(), EMBED + LINGER), "a", "b", "c");

            assertEquals(List.of(200, 200, 200), reads.stream().map(Output::status).toList());
            assertEquals(List.of(2, 1, 1), reads.stream().map(Output::attempts).toList());
        }
    }

    @Test
    void vectorsThatAreOneTooFewAndNumberedThroughAreNotTrusted() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> {
                            List<String> given = new ArrayList<>(asked.texts());
                            given.remove("left out");
                            return FakePool.embedded(given);
                        })) {
            String config = config(pool.url(), EMBED + LINGER);

            List<Output> reads = ask(config, "a", "left out", "ccc", "dd");

            assertOnlyFailed(reads, 1);
            assertArrayEquals(FakePool.vector(3, 1), reads.get(2).bytes());
            assertArrayEquals(FakePool.vector(2, 1), reads.get(3).bytes());
        }
    }

    @Test
    void anAnswerThatCannotBePlacedIsNotUsed() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, asked) ->
                                page(
                                        List.of(
                                                FakePool.item(0, FakePool.vector(1f)),
                                                FakePool.item(2, new byte[4]))))) {
            List<Output> reads = ask(config(pool.url(), EMBED + LINGER), "a", "b");

            for (Output read : reads) {
                assertEquals(
                        "the answer has an embedding of index 2, asked were 1 texts",
                        read.reason());
                assertEquals(0, read.status());
            }
        }
    }

    @Test
    void aVectorOfAnotherDimensionThanTheSettingsSayFails() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> FakePool.embedded(asked.texts()))) {
            Output read = ask(config(pool.url(), EMBED + LINGER + ",\"dim\":384"), "a").get(0);

            assertEquals("the embedding has dimension 2, not 384", read.reason());
        }
    }

    @Test
    void aTextThatWaitsBehindABusyPoolRunsOutOfTimeToo() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, asked) -> CallHarness.hang(never))) {
            String limits = ",\"linger_ms\":0,\"requests_max\":1,\"timeout_ms\":300";

            List<Output> reads = ask(config(pool.url(), EMBED + limits), "a", "b", "c");

            assertEquals(
                    List.of("no answer within 300 ms"),
                    reads.stream().map(Output::reason).distinct().toList());
            assertEquals(3, reads.size());
        }
    }

    private static void assertOnlyFailed(List<Output> reads, int guilty) {
        for (int i = 0; i < reads.size(); i++) {
            assertEquals(i != guilty, reads.get(i).reason().isEmpty(), reads.get(i).toString());
        }
    }

    private static FakePool.Response unless(String bad, FakePool.Response said, FakePool.Request asked) {
        if (!asked.texts().contains(bad)) {
            return FakePool.embedded(asked.texts());
        }
        if (said.status() == 0) {
            throw new IllegalStateException("the connection closes");
        }
        return said;
    }

    private static FakePool.Response said(String statusAndBody) {
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
