package org.sage.flink;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.ServerSocket;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.datastream.AsyncDataStream;
import org.apache.flink.streaming.api.operators.async.AsyncWaitOperatorFactory;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

@Timeout(30)
class PoolCallTest {

    private static final String EMBED =
            "\"mode\":\"embed\",\"model\":\"minilm\",\"path\":\"/v1/embeddings\"";

    @Test
    void aPostIsAnsweredWithTheBodyAndAskedUnderItsId() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(200, "{\"a\":1}"))) {
            Read read = ask(config(pool.url(), "\"path\":\"/v1/chat/completions\""), "{}").get(0);

            assertEquals(new Read("c0", 200, 1, "", "{\"a\":1}"), read);
            FakePool.Asked asked = pool.asked.get(0);
            assertEquals("/v1/chat/completions", asked.path());
            assertEquals("{}", asked.body());
            assertEquals("id0", asked.headers().getFirst("X-Request-Id"));
            assertEquals("id0", asked.headers().getFirst("Idempotency-Key"));
            assertEquals("application/json", asked.headers().getFirst("Content-Type"));
            assertFalse(asked.headers().containsKey("Authorization"));
        }
    }

    @Test
    void aQuestionWithoutABodyIsNotAskedAndKeepsItsPlace() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(200, "{}"))) {
            List<Read> reads = ask(config(pool.url(), "\"ordered\":true"), "{}", "", "{}");

            assertEquals(new Read("c1", 0, 0, "", ""), reads.get(1));
            assertEquals(List.of("c0", "c1", "c2"), reads.stream().map(Read::carrier).toList());
            assertEquals(2, pool.asked.size());
        }
    }

    @Test
    void aPassingErrorIsAskedAgain() throws Exception {
        try (FakePool pool =
                new FakePool((n, asked) -> new FakePool.Said(n == 0 ? 503 : 200, "{}"))) {
            Read read = ask(config(pool.url(), ""), "{}").get(0);

            assertEquals(new Read("c0", 200, 2, "", "{}"), read);
        }
    }

    @Test
    void aConnectionThatBreaksIsAskedAgainAtTheNextUrl() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(200, "{}"))) {
            String urls = "\"urls\":[\"" + nowhere() + "\",\"" + pool.url() + "\"]";

            Read read = ask("{\"name\":\"step\"," + urls + "}", "{}").get(0);

            assertEquals(new Read("c0", 200, 2, "", "{}"), read);
        }
    }

    @Test
    void retryAfterIsHonoured() throws Exception {
        FakePool.Said wait = new FakePool.Said(429, "{}", Map.of("Retry-After", "1"));
        try (FakePool pool =
                new FakePool((n, asked) -> n == 0 ? wait : new FakePool.Said(200, "{}"))) {
            Read read = ask(config(pool.url(), ""), "{}").get(0);

            assertEquals(2, read.attempts());
            assertTrue(pool.asked.get(1).atMs() - pool.asked.get(0).atMs() >= 990);
        }
    }

    @Test
    void aRetryAfterBeyondTheBudgetEndsTheCallAtOnce() throws Exception {
        FakePool.Said wait = new FakePool.Said(503, "", Map.of("Retry-After", "60"));
        try (FakePool pool = new FakePool((n, asked) -> wait)) {
            Read read = ask(config(pool.url(), "\"timeout_ms\":5000"), "{}").get(0);

            assertEquals(new Read("c0", 503, 1, "HTTP 503", ""), read);
        }
    }

    @Test
    void aRefusalIsFinalAndKeepsThePoolsWords() throws Exception {
        String body = "{\"error\":{\"message\":\"prompt is too long\"}}";
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(400, body))) {
            Read read = ask(config(pool.url(), ""), "{}").get(0);

            assertEquals(new Read("c0", 400, 1, "prompt is too long", body), read);
        }
    }

    @Test
    void attemptsHaveALimit() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(500, "no JSON"))) {
            Read read = ask(config(pool.url(), "\"attempts_max\":3"), "{}").get(0);

            assertEquals(new Read("c0", 500, 3, "HTTP 500", "no JSON"), read);
        }
    }

    @Test
    void aPoolThatIsAwayIsAnEnvelopeToo() throws Exception {
        Read read = ask(config(nowhere(), "\"attempts_max\":2"), "{}").get(0);

        assertEquals(0, read.status());
        assertEquals(2, read.attempts());
        assertTrue(read.reason().startsWith("no connection to http://127.0.0.1"), read.reason());
    }

    @Test
    void aCallWithoutAnAnswerInTimeIsAnEnvelopeToo() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, asked) -> hang(never))) {
            Read read = ask(config(pool.url(), "\"timeout_ms\":300"), "{}").get(0);

            assertEquals(new Read("c0", 0, 1, "no answer within 300 ms", ""), read);
        }
    }

    @Test
    void bytesThatAreNoQuestionComeBackAsTheCarrier() throws Exception {
        try (var operator = opened(config(nowhere(), ""))) {
            operator.processElement(new StreamRecord<>(new byte[] {'x'}));
            operator.endInput();

            Read read = reads(operator).get(0);
            assertEquals("x", read.carrier());
            assertEquals(0, read.attempts());
            assertFalse(read.reason().isEmpty());
        }
    }

    @Test
    void anIdThatCannotBeAHeaderIsAnEnvelopeToo() throws Exception {
        try (var operator = opened(config("http://127.0.0.1:9", ""))) {
            operator.processElement(new StreamRecord<>(question("c", "a\nb", "{}")));
            operator.endInput();

            assertTrue(reads(operator).get(0).reason().startsWith("the request cannot be sent"));
        }
    }

    @Test
    void orderedAnswersComeInTheOrderOfTheQuestions() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> {
                            Thread.sleep(asked.body().equals("slow") ? 300 : 0);
                            return new FakePool.Said(200, asked.body());
                        })) {
            List<Read> reads = ask(config(pool.url(), "\"ordered\":true"), "slow", "fast");

            assertEquals(List.of("c0", "c1"), reads.stream().map(Read::carrier).toList());
        }
    }

    @Test
    void textsAreGatheredAndPlacedByIndex() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> FakePool.embedded(asked.texts()))) {
            String[] texts = new String[20];
            for (int i = 0; i < texts.length; i++) {
                texts[i] = "x".repeat(i + 1);
            }

            List<Read> reads =
                    ask(config(pool.url(), EMBED + ",\"items_max\":8,\"linger_ms\":500"), texts);

            assertEquals(List.of(8, 8, 4), sizes(pool));
            for (int i = 0; i < texts.length; i++) {
                assertEquals(200, reads.get(i).status());
                assertArrayEquals(FakePool.vector(i + 1, 1f), bytes(reads.get(i).answer()));
            }
        }
    }

    @Test
    void aLoneTextGoesWhenItHasLingered() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> FakePool.embedded(asked.texts()))) {
            Read read = ask(config(pool.url(), EMBED + ",\"linger_ms\":20"), "hello").get(0);

            assertArrayEquals(FakePool.vector(5f, 1f), bytes(read.answer()));
            String body = pool.asked.get(0).body();
            assertEquals(
                    "{\"model\":\"minilm\",\"input\":[\"hello\"],\"encoding_format\":\"base64\"}",
                    body);
        }
    }

    @Test
    void whileAllRequestsAreBusyTextsGatherFurther() throws Exception {
        AtomicInteger now = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> {
                            most.accumulateAndGet(now.incrementAndGet(), Math::max);
                            Thread.sleep(100);
                            now.decrementAndGet();
                            return FakePool.embedded(asked.texts());
                        })) {
            String limits = ",\"items_max\":16,\"linger_ms\":0,\"requests_max\":2";
            String[] texts = new String[34];
            java.util.Arrays.fill(texts, "t");

            ask(config(pool.url(), EMBED + limits), texts);

            assertEquals(2, most.get());
            assertTrue(pool.asked.size() <= 6, "requests: " + sizes(pool));
        }
    }

    @Test
    void aTextThatIsRefusedHarmsOnlyItself() throws Exception {
        FakePool.Said refused =
                new FakePool.Said(422, "{\"error\":{\"message\":\"input is too long\"}}");
        try (FakePool pool =
                new FakePool(
                        (n, asked) ->
                                asked.texts().contains("bad")
                                        ? refused
                                        : FakePool.embedded(asked.texts()))) {
            List<Read> reads =
                    ask(config(pool.url(), EMBED + ",\"linger_ms\":200"), "a", "bad", "c", "d");

            assertEquals(List.of(200, 422, 200, 200), reads.stream().map(Read::status).toList());
            assertEquals("input is too long", reads.get(1).reason());
            assertEquals(3, reads.get(1).attempts());
            assertEquals(2, reads.get(3).attempts());
            assertArrayEquals(FakePool.vector(1f, 1f), bytes(reads.get(0).answer()));
        }
    }

    @Test
    void aFaultyVectorHarmsOnlyItsText() throws Exception {
        String data =
                String.join(
                        ",",
                        FakePool.item(0, FakePool.vector(1f, 2f)),
                        FakePool.item(1, FakePool.vector(Float.NaN, 2f)),
                        FakePool.item(2, FakePool.vector(1f)),
                        FakePool.item(3, FakePool.vector(3f, 4f)),
                        "{\"index\":5,\"embedding\":[5, 6]}",
                        "{\"index\":6,\"embedding\":\"?\"}",
                        FakePool.item(7, FakePool.vector(7f, 7f)),
                        FakePool.item(7, FakePool.vector(7f, 7f)));
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> new FakePool.Said(200, "{\"data\":[" + data + "]}"))) {
            List<Read> reads =
                    ask(
                            config(pool.url(), EMBED + ",\"linger_ms\":200"),
                            "a", "b", "c", "d", "e", "f", "g", "h");

            assertEquals(
                    List.of(
                            "",
                            "the embedding has a number that is not finite",
                            "the embedding has dimension 1, the others of its request have 2",
                            "",
                            "the answer has no embedding of this text: asked were 8, got 8",
                            "",
                            "the embedding is not base64",
                            "the answer has two embeddings of this text"),
                    reads.stream().map(Read::reason).toList());
            assertArrayEquals(FakePool.vector(5f, 6f), bytes(reads.get(5).answer()));
            assertEquals(0, reads.get(1).status());
        }
    }

    @Test
    void anAnswerThatCannotBePlacedFailsAllItsTexts() throws Exception {
        String data = FakePool.item(0, FakePool.vector(1f)) + "," + FakePool.item(2, new byte[4]);
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> new FakePool.Said(200, "{\"data\":[" + data + "]}"))) {
            List<Read> reads =
                    ask(config(pool.url(), EMBED + ",\"linger_ms\":200"), "a", "b");

            for (Read read : reads) {
                assertEquals(
                        "the answer has an embedding of index 2, asked were 2 texts",
                        read.reason());
            }
        }
    }

    @Test
    void aTextThatWaitsBehindABusyPoolRunsOutOfTimeToo() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, asked) -> hang(never))) {
            String limits = ",\"linger_ms\":0,\"requests_max\":1,\"timeout_ms\":300";

            List<Read> reads = ask(config(pool.url(), EMBED + limits), "a", "b", "c");

            assertEquals(
                    List.of("no answer within 300 ms"),
                    reads.stream().map(Read::reason).distinct().toList());
            assertEquals(3, reads.size());
        }
    }

    @Test
    void whatIsInFlightAtACheckpointIsAskedAgainAfterIt() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        CountDownLatch arrived = new CountDownLatch(2);
        OperatorSubtaskState snapshot;
        try (FakePool stuck =
                new FakePool(
                        (n, asked) -> {
                            arrived.countDown();
                            return hang(never);
                        })) {
            var first = opened(config(stuck.url(), ""));
            first.processElement(new StreamRecord<>(question("c0", "id0", "{}")));
            first.processElement(new StreamRecord<>(question("c1", "id1", "{}")));
            assertTrue(arrived.await(5, TimeUnit.SECONDS));
            snapshot = first.snapshot(1, 1);
            first.close();
        }

        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(200, "{}"));
                var restored = harness(config(pool.url(), ""))) {
            restored.initializeState(snapshot);
            restored.open();
            restored.endInput();

            assertEquals(
                    List.of("c0", "c1"),
                    reads(restored).stream().map(Read::carrier).sorted().toList());
            assertEquals(
                    List.of("id0", "id1"),
                    pool.asked.stream()
                            .map(asked -> asked.headers().getFirst("X-Request-Id"))
                            .sorted()
                            .toList());
        }
    }

    @Test
    void settingsThatCannotWorkAreRefusedBeforeAnythingRuns() {
        assertRefused("\"capacity\":0", "step 'step': capacity must be at least 1, got 0");
        assertRefused("\"mode\":\"embed\"", "step 'step': mode embed needs a model");
        assertRefused("\"mode\":\"chat\"", "step 'step': mode must be post or embed, got 'chat'");
        Exception error =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> new PoolCall(config("http://x", "\"retries\":3")));
        assertTrue(error.getMessage().startsWith("step 'step': unknown setting 'retries'"));
    }

    @Test
    void backoffGrowsIsJitteredAndNeverUndercutsRetryAfter() {
        assertEquals(0, Backoff.delayMs(1, 0, 0));
        assertEquals(50, Backoff.delayMs(1, 0, 0.5));
        assertEquals(400, Backoff.delayMs(4, 0, 0.5));
        assertEquals(2_500, Backoff.delayMs(50, 0, 0.5));
        assertEquals(3_050, Backoff.delayMs(1, 3_000, 0.5));
    }

    @Test
    void theKeyIsTheVariableElseTheFileElseNone(@org.junit.jupiter.api.io.TempDir java.nio.file.Path home)
            throws IOException {
        java.nio.file.Files.writeString(home.resolve("key"), "from-file\n");
        Map<String, String> environment = new TreeMap<>(Map.of("SAGE_HOME", home.toString()));

        assertEquals("from-file", ApiKey.find(environment, "KEY", "key").orElseThrow());
        assertTrue(ApiKey.find(environment, "KEY", "absent").isEmpty());
        environment.put("KEY", "from-variable");
        assertEquals("from-variable", ApiKey.find(environment, "KEY", "key").orElseThrow());
        assertTrue(ApiKey.find(Map.of(), "KEY", "key").isEmpty());
    }

    /** An envelope, read. */
    private record Read(String carrier, int status, int attempts, String reason, String answer) {}

    private static void assertRefused(String setting, String message) {
        Exception error =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> new PoolCall(config("http://x", setting)));
        assertEquals(message, error.getMessage());
    }

    private static FakePool.Said hang(CountDownLatch never) throws InterruptedException {
        never.await(20, TimeUnit.SECONDS);
        throw new IllegalStateException("the test is over");
    }

    private static String nowhere() throws IOException {
        try (ServerSocket socket = new ServerSocket(0)) {
            return "http://127.0.0.1:" + socket.getLocalPort();
        }
    }

    private static String config(String url, String more) {
        String rest = more.isEmpty() ? "" : "," + more;
        return "{\"name\":\"step\",\"urls\":[\"" + url + "\"]" + rest + "}";
    }

    /** The envelopes of these bodies, in the order of arrival where unordered by carrier. */
    private static List<Read> ask(String config, String... bodies) throws Exception {
        try (var operator = opened(config)) {
            for (int i = 0; i < bodies.length; i++) {
                operator.processElement(
                        new StreamRecord<>(question("c" + i, "id" + i, bodies[i])));
            }
            operator.endInput();
            List<Read> reads = new ArrayList<>(reads(operator));
            if (!config.contains("\"ordered\":true")) {
                reads.sort(
                        java.util.Comparator.comparingInt(
                                read -> Integer.parseInt(read.carrier().substring(1))));
            }
            return reads;
        }
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> opened(String config)
            throws Exception {
        var harness = harness(config);
        harness.open();
        return harness;
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> harness(String config)
            throws Exception {
        var mode =
                config.contains("\"ordered\":true")
                        ? AsyncDataStream.OutputMode.ORDERED
                        : AsyncDataStream.OutputMode.UNORDERED;
        return new OneInputStreamOperatorTestHarness<>(
                new AsyncWaitOperatorFactory<>(new PoolCall(config), 20_000, 64, mode),
                BytePrimitiveArraySerializer.INSTANCE);
    }

    private static byte[] question(String carrier, String id, String body) throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(3);
            WireRecord.packBytes(packer, carrier.getBytes());
            packer.packString(id);
            WireRecord.packBytes(packer, body.getBytes());
            return packer.toByteArray();
        }
    }

    private static List<Read> reads(OneInputStreamOperatorTestHarness<byte[], byte[]> operator)
            throws IOException {
        List<Read> reads = new ArrayList<>();
        for (byte[] envelope : operator.extractOutputValues()) {
            try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(envelope)) {
                assertEquals(5, unpacker.unpackArrayHeader());
                reads.add(
                        new Read(
                                latin(WireRecord.unpackBytes(unpacker)),
                                unpacker.unpackInt(),
                                unpacker.unpackInt(),
                                unpacker.unpackString(),
                                latin(WireRecord.unpackBytes(unpacker))));
            }
        }
        return reads;
    }

    private static List<Integer> sizes(FakePool pool) {
        return pool.asked.stream()
                .map(asked -> asked.texts().size())
                .sorted(java.util.Comparator.reverseOrder())
                .toList();
    }

    private static String latin(byte[] bytes) {
        return new String(bytes, java.nio.charset.StandardCharsets.ISO_8859_1);
    }

    private static byte[] bytes(String latin) {
        return latin.getBytes(java.nio.charset.StandardCharsets.ISO_8859_1);
    }
}
