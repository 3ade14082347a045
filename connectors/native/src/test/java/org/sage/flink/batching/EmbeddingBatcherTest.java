package org.sage.flink.batching;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.EMBED;
import static org.sage.flink.testing.CallHarness.call;
import static org.sage.flink.testing.CallHarness.config;
import static org.sage.flink.testing.CallHarness.callRequest;

import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.sage.flink.testing.CallHarness.Output;
import org.sage.flink.testing.FakePool;

/** The composition, timing and headers of embedding batches. */
@Timeout(30)
class EmbeddingBatcherTest {

    @Test
    void textsAreBatchedAndVectorsPlacedByIndex() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> FakePool.embeddings(request.texts()))) {
            String[] texts = new String[20];
            for (int i = 0; i < texts.length; i++) {
                texts[i] = "x".repeat(i + 1);
            }

            List<Output> outputs =
                    call(config(pool.url(), EMBED + ",\"items_max\":8,\"linger_ms\":500"), texts);

            assertEquals(List.of(8, 8, 4), sizes(pool));
            for (int i = 0; i < texts.length; i++) {
                assertEquals(200, outputs.get(i).status());
                assertArrayEquals(FakePool.vector(i + 1, 1f), outputs.get(i).bytes());
            }
        }
    }

    @Test
    void aSingleTextIsSentAfterTheLingerWithItsOwnHeaders() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> FakePool.embeddings(request.texts()))) {
            Output output = call(config(pool.url(), EMBED + ",\"linger_ms\":20"), "hello").get(0);

            assertArrayEquals(FakePool.vector(5f, 1f), output.bytes());
            FakePool.Request request = pool.requests.get(0);
            assertEquals(
                    "{\"model\":\"minilm\",\"input\":[\"hello\"],\"encoding_format\":\"base64\"}",
                    request.body());
            assertEquals("id0", request.header("X-Request-Id"));
        }
    }

    @Test
    void aBatchIsLimitedInTokensAndALongerTextIsSentAlone() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> FakePool.embeddings(request.texts()))) {
            String limits = ",\"tokens_max\":10,\"linger_ms\":300";
            String five = "x".repeat(20);
            String twenty = "x".repeat(80);

            call(config(pool.url(), EMBED + limits), five, five, five, twenty, five);

            assertEquals(
                    List.of(List.of(20, 20), List.of(20), List.of(20), List.of(80)),
                    pool.requests.stream()
                            .map(request -> request.texts().stream().map(String::length).toList())
                            .sorted(Comparator.comparing(List::toString))
                            .toList());
        }
    }

    @Test
    void textsOfDifferentTenantsOrPrioritiesAreNotBatchedTogether() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> FakePool.embeddings(request.texts()))) {
            call(
                    config(pool.url(), EMBED + ",\"linger_ms\":100"),
                    text("c0", "a", "t1", "high"),
                    text("c1", "b", "t1", "low"),
                    text("c2", "c", "t2", "high"),
                    text("c3", "d", "t1", "high"));

            assertEquals(
                    List.of("t1/high [a, d]", "t1/low [b]", "t2/high [c]"),
                    pool.requests.stream()
                            .map(
                                    request ->
                                            request.header("X-Sage-Tenant")
                                                    + "/"
                                                    + request.header("X-Sage-Priority")
                                                    + " "
                                                    + request.texts())
                            .sorted()
                            .toList());
        }
    }

    @Test
    void aBatchHasTheEarliestDeadlineAndAnIdDerivedFromItsTexts() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> FakePool.embeddings(request.texts()))) {
            String config = config(pool.url(), EMBED + ",\"linger_ms\":100");
            byte[][] texts = {due("c0", 99999999999992L), due("c1", 99999999999991L)};

            call(config, texts);
            call(config, texts);
            call(config, due("c0", 99999999999992L), due("c2", 99999999999993L));

            FakePool.Request first = pool.requests.get(0);
            String id = first.header("X-Request-Id");
            assertEquals("99999999999991", first.header("X-Sage-Deadline-Ms"));
            assertTrue(id.matches("[0-9a-f]{32}"), id);
            assertEquals(id, first.header("Idempotency-Key"));
            assertEquals("00-" + id + "-" + id.substring(0, 16) + "-00", first.header("Traceparent"));
            assertNull(first.header("X-Sage-Tenant"));
            assertEquals(id, pool.requests.get(1).header("X-Request-Id"), "the same texts");
            assertEquals(false, id.equals(pool.requests.get(2).header("X-Request-Id")), "others");
        }
    }

    @Test
    void batchesGrowWhileAllSlotsAreBusy() throws Exception {
        AtomicInteger now = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        try (FakePool pool =
                new FakePool(
                        (n, request) -> {
                            most.accumulateAndGet(now.incrementAndGet(), Math::max);
                            Thread.sleep(100);
                            now.decrementAndGet();
                            return FakePool.embeddings(request.texts());
                        })) {
            String limits = ",\"items_max\":16,\"linger_ms\":0,\"requests_max\":2";
            String[] texts = new String[34];
            Arrays.fill(texts, "t");

            call(config(pool.url(), EMBED + limits), texts);

            assertEquals(2, most.get());
            assertTrue(pool.requests.size() <= 6, "requests: " + sizes(pool));
        }
    }

    private static byte[] text(String carrier, String text, String tenant, String priority)
            throws Exception {
        return callRequest(
                carrier, carrier, text, Map.of("x-sage-tenant", tenant, "x-sage-priority", priority));
    }

    private static byte[] due(String carrier, long deadlineMs) throws Exception {
        return callRequest(
                carrier, carrier, carrier, Map.of("x-sage-deadline-ms", Long.toString(deadlineMs)));
    }

    private static List<Integer> sizes(FakePool pool) {
        return pool.requests.stream()
                .map(request -> request.texts().size())
                .sorted(Comparator.reverseOrder())
                .toList();
    }
}
