package org.sage.flink.call;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.call;
import static org.sage.flink.testing.CallHarness.config;
import static org.sage.flink.testing.CallHarness.unusedUrl;
import static org.sage.flink.testing.CallHarness.openOperator;
import static org.sage.flink.testing.CallHarness.callRequest;
import static org.sage.flink.testing.CallHarness.outputs;

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

/** One result for each request: its content, its order, and failures as results. */
@Timeout(30)
class PoolAsyncFunctionTest {

    @Test
    void aRequestIsSentWithItsHeadersAndTheResultHasTheBody() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "{\"a\":1}"))) {
            Map<String, String> headers =
                    Map.of("x-sage-tenant", "t", "x-sage-priority", "high", "traceparent", "00-1");
            String config = config(pool.url(), "\"path\":\"/v1/chat/completions\"");

            Output output = call(config, callRequest("c0", "id0", "{}", headers)).get(0);

            assertEquals(new Output("c0", 200, 1, "", "{\"a\":1}"), output);
            FakePool.Request request = pool.requests.get(0);
            assertEquals("/v1/chat/completions", request.path());
            assertEquals("{}", request.body());
            assertEquals("id0", request.header("X-Request-Id"));
            assertEquals("id0", request.header("Idempotency-Key"));
            assertEquals("t", request.header("X-Sage-Tenant"));
            assertEquals("high", request.header("X-Sage-Priority"));
            assertEquals("00-1", request.header("Traceparent"));
            assertEquals("1", request.header("X-Sage-Attempt"));
            assertEquals("application/json", request.header("Content-Type"));
            assertFalse(request.headers().containsKey("Authorization"));
        }
    }

    @Test
    void aRequestOfAnOldCheckpointIsSentWithItsIdOnly() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "{}"));
                MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(3);
            CallHarness.packBytes(packer, "c0".getBytes());
            packer.packString("id0");
            CallHarness.packBytes(packer, "{}".getBytes());

            Output output = call(config(pool.url(), ""), packer.toByteArray()).get(0);

            assertEquals("c0", output.carrier());
            assertEquals("id0", pool.requests.get(0).header("X-Request-Id"));
            assertEquals("id0", pool.requests.get(0).header("Idempotency-Key"));
        }
    }

    @Test
    void theDeadlineHeaderIsTheRecordsOwnOrArrivalPlusSlack() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "{}"))) {
            long before = System.currentTimeMillis();
            Map<String, String> own = Map.of("x-sage-deadline-ms", "99999999999999");

            call(
                    config(pool.url(), "\"slack_ms\":5000,\"ordered\":true,\"capacity\":1"),
                    callRequest("c0", "id0", "{}", Map.of()),
                    callRequest("c1", "id1", "{}", own));

            long after = System.currentTimeMillis();
            long deadline = Long.parseLong(requestOf(pool, "id0").header("X-Sage-Deadline-Ms"));
            assertTrue(before + 5000 <= deadline && deadline <= after + 5000, deadline + " of " + before);
            assertEquals("99999999999999", requestOf(pool, "id1").header("X-Sage-Deadline-Ms"));
        }
    }

    @Test
    void aRecordAfterItsOwnDeadlineFailsWithoutACall() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "{}"))) {
            Map<String, String> past = Map.of("x-sage-deadline-ms", "1000");

            Output output = call(config(pool.url(), ""), callRequest("c0", "i", "{}", past)).get(0);

            assertEquals(0, output.status());
            assertEquals(0, output.attempts());
            assertTrue(output.reason().matches("its deadline had passed \\d+ ms before it was asked"));
            assertEquals(List.of(), pool.requests);
        }
    }

    @Test
    void theDeadlineHeaderDoesNotShortenTheTimeout() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, request) -> {
                            Thread.sleep(300);
                            return new FakePool.Response(200, "{}");
                        })) {
            Output output = call(config(pool.url(), "\"slack_ms\":50"), "{}").get(0);

            assertEquals(new Output("c0", 200, 1, "", "{}"), output);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"post", "embed"})
    void aRequestWithAnEmptyBodyPassesThroughInOrder(String mode) throws Exception {
        try (FakePool pool = new FakePool((n, request) -> respond(request))) {
            String more = "\"ordered\":true,\"linger_ms\":100,\"model\":\"m\",\"mode\":\"" + mode;

            List<Output> outputs = call(config(pool.url(), more + "\""), "{}", "", "{}");

            assertEquals(List.of("c0", "c1", "c2"), outputs.stream().map(Output::carrier).toList());
            assertEquals(new Output("c1", 0, 0, "", ""), outputs.get(1));
            assertEquals(200, outputs.get(0).status());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"post", "embed"})
    void orderedResultsKeepTheOrderOfTheRequests(String mode) throws Exception {
        try (FakePool pool = new FakePool((n, request) -> slowly(request))) {
            String more = "\"items_max\":1,\"model\":\"m\",\"mode\":\"" + mode + "\"";

            List<Output> ordered = call(config(pool.url(), more + ",\"ordered\":true"), "slow", "{}");

            assertEquals(List.of("c0", "c1"), ordered.stream().map(Output::carrier).toList());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"post", "embed"})
    void unorderedResultsAreEmittedAsTheyComplete(String mode) throws Exception {
        try (FakePool pool = new FakePool((n, request) -> slowly(request));
                var operator =
                        openOperator(
                                config(
                                        pool.url(),
                                        "\"items_max\":1,\"model\":\"m\",\"mode\":\"" + mode + "\""))) {
            operator.processElement(new StreamRecord<>(callRequest("c0", "id0", "slow", Map.of())));
            operator.processElement(new StreamRecord<>(callRequest("c1", "id1", "{}", Map.of())));
            operator.endInput();

            assertEquals(
                    List.of("c1", "c0"), outputs(operator).stream().map(Output::carrier).toList());
        }
    }

    @Test
    void aTimeoutIsAResultWithAReason() throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        try (FakePool pool = new FakePool((n, request) -> CallHarness.hang(never))) {
            Output output = call(config(pool.url(), "\"timeout_ms\":300"), "{}").get(0);

            assertEquals(new Output("c0", 0, 1, "no answer within 300 ms", ""), output);
        }
    }

    @Test
    void bytesThatAreNotARequestAreReturnedAsTheCarrier() throws Exception {
        try (var operator = openOperator(config(unusedUrl(), ""))) {
            operator.processElement(new StreamRecord<>(new byte[] {'x'}));
            operator.endInput();

            Output output = outputs(operator).get(0);
            assertEquals("x", output.carrier());
            assertEquals(0, output.attempts());
            assertFalse(output.reason().isEmpty());
        }
    }

    @Test
    void anIdThatCannotBeAHeaderIsAResultWithAReason() throws Exception {
        Output output =
                call(config(unusedUrl(), ""), callRequest("c0", "a\nb", "{}", Map.of())).get(0);

        assertTrue(output.reason().startsWith("the request cannot be sent"), output.reason());
    }

    private static FakePool.Response slowly(FakePool.Request request) throws InterruptedException {
        Thread.sleep(request.body().contains("slow") ? 400 : 0);
        return respond(request);
    }

    private static FakePool.Response respond(FakePool.Request request) {
        return request.body().contains("input")
                ? FakePool.embeddings(request.texts())
                : new FakePool.Response(200, "{}");
    }

    private static FakePool.Request requestOf(FakePool pool, String id) {
        return pool.requests.stream()
                .filter(request -> id.equals(request.header("X-Request-Id")))
                .findFirst()
                .orElseThrow();
    }
}
