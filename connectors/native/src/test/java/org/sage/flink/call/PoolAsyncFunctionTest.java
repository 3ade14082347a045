package org.sage.flink.call;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.ask;
import static org.sage.flink.testing.CallHarness.config;
import static org.sage.flink.testing.CallHarness.nowhere;
import static org.sage.flink.testing.CallHarness.opened;
import static org.sage.flink.testing.CallHarness.question;
import static org.sage.flink.testing.CallHarness.reads;

import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.testing.CallHarness.Output;
import org.sage.flink.testing.CallHarness;
import org.sage.flink.testing.FakePool;

/** What goes in and out: a question each, an envelope each. */
@Timeout(30)
class PoolAsyncFunctionTest {

    @Test
    void aPostIsAnsweredWithTheBodyAndAskedUnderItsHeaders() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, "{\"a\":1}"))) {
            Map<String, String> headers =
                    Map.of("x-sage-tenant", "t", "x-sage-priority", "high", "traceparent", "00-1");
            String config = config(pool.url(), "\"path\":\"/v1/chat/completions\"");

            Output read = ask(config, question("c0", "id0", "{}", headers)).get(0);

            assertEquals(new Output("c0", 200, 1, "", "{\"a\":1}"), read);
            FakePool.Request asked = pool.asked.get(0);
            assertEquals("/v1/chat/completions", asked.path());
            assertEquals("{}", asked.body());
            assertEquals("id0", asked.header("X-Request-Id"));
            assertEquals("id0", asked.header("Idempotency-Key"));
            assertEquals("t", asked.header("X-Sage-Tenant"));
            assertEquals("high", asked.header("X-Sage-Priority"));
            assertEquals("00-1", asked.header("Traceparent"));
            assertEquals("1", asked.header("X-Sage-Attempt"));
            assertEquals("application/json", asked.header("Content-Type"));
            assertFalse(asked.headers().containsKey("Authorization"));
        }
    }

    @Test
    void aQuestionOfAnOldCheckpointHasItsIdAlone() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, "{}"));
                MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(3);
            CallHarness.packBytes(packer, "c0".getBytes());
            packer.packString("id0");
            CallHarness.packBytes(packer, "{}".getBytes());

            Output read = ask(config(pool.url(), ""), packer.toByteArray()).get(0);

            assertEquals("c0", read.carrier());
            assertEquals("id0", pool.asked.get(0).header("X-Request-Id"));
            assertEquals("id0", pool.asked.get(0).header("Idempotency-Key"));
        }
    }

    @Test
    void thePoolIsToldOfADeadlineTheRecordsOwnOrArrivalAndSlack() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, "{}"))) {
            long before = System.currentTimeMillis();
            Map<String, String> own = Map.of("x-sage-deadline-ms", "99999999999999");

            ask(
                    config(pool.url(), "\"slack_ms\":5000,\"ordered\":true,\"capacity\":1"),
                    question("c0", "id0", "{}", Map.of()),
                    question("c1", "id1", "{}", own));

            long after = System.currentTimeMillis();
            long told = Long.parseLong(asked(pool, "id0").header("X-Sage-Deadline-Ms"));
            assertTrue(before + 5000 <= told && told <= after + 5000, told + " of " + before);
            assertEquals("99999999999999", asked(pool, "id1").header("X-Sage-Deadline-Ms"));
        }
    }

    @Test
    void aRecordAfterItsOwnDeadlineFailsWithoutACall() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Response(200, "{}"))) {
            Map<String, String> past = Map.of("x-sage-deadline-ms", "1000");

            Output read = ask(config(pool.url(), ""), question("c0", "i", "{}", past)).get(0);

            assertEquals(0, read.status());
            assertEquals(0, read.attempts());
            assertTrue(read.reason().matches("its deadline had passed \\d+ ms before it was asked"));
            assertEquals(List.of(), pool.asked);
        }
    }

    @Test
    void aDeadlineIsAdviceToThePoolAndDoesNotEndTheCall() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> {
                            Thread.sleep(300);
                            return new FakePool.Response(200, "{}");
                        })) {
            Output read = ask(config(pool.url(), "\"slack_ms\":50"), "{}").get(0);

            assertEquals(new Output("c0", 200, 1, "", "{}"), read);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"post", "embed"})
    void aQuestionThatAsksNothingPassesThroughInItsPlace(String mode) throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> answer(asked))) {
            String more = "\"ordered\":true,\"linger_ms\":100,\"model\":\"m\",\"mode\":\"" + mode;

            List<Output> reads = ask(config(pool.url(), more + "\""), "{}", "", "{}");

            assertEquals(List.of("c0", "c1", "c2"), reads.stream().map(Output::carrier).toList());
            assertEquals(new Output("c1", 0, 0, "", ""), reads.get(1));
            assertEquals(200, reads.get(0).status());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"post", "embed"})
    void orderedAnswersComeInTheOrderOfTheQuestions(String mode) throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> slowly(asked))) {
            String more = "\"items_max\":1,\"model\":\"m\",\"mode\":\"" + mode + "\"";

            List<Output> ordered = ask(config(pool.url(), more + ",\"ordered\":true"), "slow", "{}");

            assertEquals(List.of("c0", "c1"), ordered.stream().map(Output::carrier).toList());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"post", "embed"})
    void unorderedAnswersComeAsTheyAre(String mode) throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> slowly(asked));
                var operator =
                        opened(
                                config(
                                        pool.url(),
                                        "\"items_max\":1,\"model\":\"m\",\"mode\":\"" + mode + "\""))) {
            operator.processElement(new StreamRecord<>(question("c0", "id0", "slow", Map.of())));
            operator.processElement(new StreamRecord<>(question("c1", "id1", "{}", Map.of())));
            operator.endInput();

            assertEquals(
                    List.of("c1", "c0"), reads(operator).stream().map(Output::carrier).toList());
        }
    }

    @Test
    void aCallWithoutAnAnswerInTimeIsAnEnvelopeToo() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, asked) -> CallHarness.hang(never))) {
            Output read = ask(config(pool.url(), "\"timeout_ms\":300"), "{}").get(0);

            assertEquals(new Output("c0", 0, 1, "no answer within 300 ms", ""), read);
        }
    }

    @Test
    void bytesThatAreNoQuestionComeBackAsTheCarrier() throws Exception {
        try (var operator = opened(config(nowhere(), ""))) {
            operator.processElement(new StreamRecord<>(new byte[] {'x'}));
            operator.endInput();

            Output read = reads(operator).get(0);
            assertEquals("x", read.carrier());
            assertEquals(0, read.attempts());
            assertFalse(read.reason().isEmpty());
        }
    }

    @Test
    void anIdThatCannotBeAHeaderIsAnEnvelopeToo() throws Exception {
        Output read =
                ask(config(nowhere(), ""), question("c0", "a\nb", "{}", Map.of())).get(0);

        assertTrue(read.reason().startsWith("the request cannot be sent"), read.reason());
    }

    private static FakePool.Response slowly(FakePool.Request asked) throws InterruptedException {
        Thread.sleep(asked.body().contains("slow") ? 400 : 0);
        return answer(asked);
    }

    private static FakePool.Response answer(FakePool.Request asked) {
        return asked.body().contains("input")
                ? FakePool.embedded(asked.texts())
                : new FakePool.Response(200, "{}");
    }

    private static FakePool.Request asked(FakePool pool, String id) {
        return pool.asked.stream()
                .filter(asked -> id.equals(asked.header("X-Request-Id")))
                .findFirst()
                .orElseThrow();
    }
}
