package org.sage.flink.merging;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.call;
import static org.sage.flink.testing.CallHarness.config;
import static org.sage.flink.testing.CallHarness.harness;
import static org.sage.flink.testing.CallHarness.openOperator;
import static org.sage.flink.testing.CallHarness.outputs;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.pool.MergingConfig;
import org.sage.flink.testing.CallHarness;
import org.sage.flink.testing.CallHarness.Output;
import org.sage.flink.testing.FakePool;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.CallResult;

/** Requests of one group whose vectors are near have one answer; every record has its result. */
@Timeout(30)
class MergingExecutorTest {

    private static final String MERGING =
            "\"merging\":{\"threshold\":0.9,\"within_ms\":60000,\"answers_max\":100}";
    private static final float[] EAST = {1, 0};
    private static final float[] ALMOST_EAST = {0.995f, 0.0998f};
    private static final float[] NORTH = {0, 1};

    private static byte[] request(int number, String body, String group, float[] vector)
            throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(6);
            CallHarness.packBytes(packer, ("c" + number).getBytes());
            packer.packString("id" + number);
            CallHarness.packBytes(packer, body.getBytes());
            packer.packMapHeader(1);
            packer.packString("x-request-id").packString("id" + number);
            CallHarness.packBytes(packer, group.getBytes());
            CallHarness.packBytes(packer, FakePool.vector(vector));
            return packer.toByteArray();
        }
    }

    private static List<String> ids(FakePool pool) {
        return pool.requests.stream().map(r -> r.header("X-Request-Id")).sorted().toList();
    }

    @Test
    void nearRequestsOfAGroupShareOneCallAndEachHasItsResult() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> answer(request.body()))) {
            List<Output> outputs =
                    call(
                            config(pool.url(), MERGING),
                            request(0, "one", "g", EAST),
                            request(1, "two", "g", ALMOST_EAST),
                            request(2, "three", "g", NORTH),
                            request(3, "four", "other", EAST),
                            CallHarness.callRequest("c4", "id4", "five", Map.of()));

            assertEquals(List.of("id0", "id2", "id3", "id4"), ids(pool));
            assertEquals(new Output("c1", 200, 0, "", "{\"to\":\"one\"}"), outputs.get(1));
            assertEquals(
                    List.of("c0 one", "c1 one", "c2 three", "c3 four", "c4 five"),
                    outputs.stream().map(o -> o.carrier() + " " + asked(o)).toList());
        }
    }

    @Test
    void withoutMergingTheSameRequestsAreAllSent() throws Exception {
        try (FakePool pool = new FakePool((n, request) -> answer(request.body()))) {
            call(
                    config(pool.url(), ""),
                    request(0, "one", "g", EAST),
                    request(1, "two", "g", ALMOST_EAST));

            assertEquals(List.of("id0", "id1"), ids(pool));
        }
    }

    @Test
    void whereTheFirstRequestFailsTheOthersAreSentThemselves() throws Exception {
        try (FakePool pool =
                new FakePool(
                        (n, request) ->
                                request.body().equals("bad")
                                        ? new FakePool.Response(400, "{\"error\":{\"message\":\"x\"}}")
                                        : answer(request.body()))) {
            List<Output> outputs =
                    call(
                            config(pool.url(), MERGING),
                            request(0, "bad", "g", EAST),
                            request(1, "good", "g", EAST),
                            request(2, "better", "g", EAST));

            assertEquals(400, outputs.get(0).status());
            assertEquals("good", asked(outputs.get(1)));
            assertEquals("better", asked(outputs.get(2)));
            assertEquals(3, pool.requests.size());
        }
    }

    @Test
    void acrossARestoreEveryRecordOfAGroupHasOneResult() throws Exception {
        OperatorSubtaskState snapshot;
        CountDownLatch never = new CountDownLatch(1);
        CountDownLatch arrived = new CountDownLatch(1);
        try (FakePool pool =
                new FakePool(
                        (n, request) -> {
                            arrived.countDown();
                            return CallHarness.hang(never);
                        })) {
            var first = openOperator(config(pool.url(), MERGING));
            for (int n = 0; n < 5; n++) {
                first.processElement(new StreamRecord<>(request(n, "b" + n, "g", EAST)));
            }
            assertTrue(arrived.await(10, TimeUnit.SECONDS));
            snapshot = first.snapshot(1, 1);
            first.close();
            assertEquals(1, pool.requests.size());
        }
        try (FakePool pool = new FakePool((n, request) -> answer(request.body()));
                var restored = harness(config(pool.url(), MERGING))) {
            restored.initializeState(snapshot);
            restored.open();
            restored.processElement(new StreamRecord<>(request(5, "b5", "g", EAST)));
            restored.endInput();

            assertEquals(
                    List.of("c0", "c1", "c2", "c3", "c4", "c5"),
                    outputs(restored).stream().map(Output::carrier).sorted().toList());
            assertEquals(1, pool.requests.size());
        }
    }

    @Test
    void answersAreBoundedByTimeCountAndBytes() {
        SharedAnswers answers = new SharedAnswers(new MergingConfig(0.9, 1, 2), 100);
        SharedAnswers.Answer first = answers.add(mergeable("a"), 0);
        assertSame(first, answers.find(mergeable("a"), 999_999));
        assertNull(answers.find(mergeable("a"), 1_000_000));

        answers.add(mergeable("a"), 2_000_000);
        answers.add(mergeable("b"), 2_000_000);
        SharedAnswers.Answer third = answers.add(mergeable("c"), 2_000_000);
        assertNull(answers.find(mergeable("a"), 2_000_001));
        assertEquals(2, answers.size());

        answers.settle(third, CallResult.ok(200, 1, new byte[101]));
        answers.find(mergeable("c"), 2_000_001);
        assertEquals(0, answers.size());
        answers.settle(first, CallResult.ok(200, 1, new byte[101]));
        SharedAnswers.Answer fourth = answers.add(mergeable("d"), 2_000_001);
        answers.settle(fourth, CallResult.ok(200, 1, new byte[100]));
        assertSame(fourth, answers.find(mergeable("d"), 2_000_002));
    }

    private static CallRequest mergeable(String group) {
        return new CallRequest(new byte[0], "id", new byte[0], Map.of(), group, EAST);
    }

    private static FakePool.Response answer(String body) {
        return new FakePool.Response(200, "{\"to\":\"" + body + "\"}");
    }

    private static String asked(Output output) {
        return output.body().replaceAll(".*\"to\":\"(.*)\".*", "$1");
    }
}
