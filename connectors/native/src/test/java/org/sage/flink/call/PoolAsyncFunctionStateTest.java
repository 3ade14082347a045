package org.sage.flink.call;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.EMBED;
import static org.sage.flink.testing.CallHarness.config;
import static org.sage.flink.testing.CallHarness.harness;
import static org.sage.flink.testing.CallHarness.openOperator;
import static org.sage.flink.testing.CallHarness.callRequest;
import static org.sage.flink.testing.CallHarness.outputs;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.sage.flink.testing.CallHarness.Output;
import org.sage.flink.testing.CallHarness;
import org.sage.flink.testing.FakePool;
import org.sage.flink.testing.RawServer;

/** The content of a checkpoint, and the connections after a job is cancelled. */
@Timeout(30)
class PoolAsyncFunctionStateTest {

    private static final int ANSWERED = 6;
    private static final int HANGING = 6;
    private static final List<String> NUMBERS =
            IntStream.range(10, 10 + ANSWERED + HANGING).mapToObj(Integer::toString).toList();

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void acrossARestoreEveryRecordHasOneResultAndOneRequestId(boolean ordered)
            throws Exception {
        String more = "\"ordered\":" + ordered;
        List<String> emitted = new ArrayList<>();
        OperatorSubtaskState snapshot = halfAnswered(more, emitted);

        try (FakePool pool = new FakePool((n, request) -> new FakePool.Response(200, "{}"));
                var restored = harness(config(pool.url(), more))) {
            restored.initializeState(snapshot);
            restored.open();
            restored.endInput();

            outputs(restored).forEach(output -> emitted.add(output.carrier() + output.reason()));
            if (!ordered) {
                emitted.sort(null);
            }
            assertEquals(NUMBERS, emitted);
            assertEquals(
                    NUMBERS.subList(ANSWERED, NUMBERS.size()).stream().map("id"::concat).toList(),
                    pool.requests.stream().map(request -> request.header("X-Request-Id")).sorted().toList());
        }
    }

    /** The checkpoint when the first records have their answer, and the others are in flight. */
    private static OperatorSubtaskState halfAnswered(String more, List<String> emitted)
            throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        CountDownLatch arrived = new CountDownLatch(HANGING);
        try (FakePool pool =
                new FakePool(
                        (n, request) -> {
                            if (request.body().equals("{}")) {
                                return new FakePool.Response(200, "{}");
                            }
                            arrived.countDown();
                            return CallHarness.hang(never);
                        })) {
            var first = openOperator(config(pool.url(), more));
            for (String number : NUMBERS) {
                String body = NUMBERS.indexOf(number) < ANSWERED ? "{}" : "hang";
                first.processElement(
                        new StreamRecord<>(callRequest(number, "id" + number, body, Map.of())));
            }
            assertTrue(arrived.await(10, TimeUnit.SECONDS));
            takeAnswers(first, ANSWERED);
            outputs(first).stream().map(Output::carrier).forEach(emitted::add);
            OperatorSubtaskState snapshot = first.snapshot(1, 1);
            first.close();
            return snapshot;
        }
    }

    private static void takeAnswers(
            OneInputStreamOperatorTestHarness<byte[], byte[]> operator, int count)
            throws Exception {
        while (operator.extractOutputValues().size() < count) {
            operator.getTaskMailbox().take(0).run();
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"\"mode\":\"post\"", EMBED})
    void cancellingAJobClosesItsConnectionsWithinASecond(String more) throws Exception {
        try (RawServer engine = new RawServer(RawServer.SILENCE)) {
            var operator = openOperator(config(engine.url(), more));
            operator.processElement(new StreamRecord<>(callRequest("c", "id", "{}", Map.of())));
            assertTrue(engine.requestArrived.await(5, TimeUnit.SECONDS));
            long startNs = System.nanoTime();

            operator.close();

            assertTrue(engine.clientClosed.await(5, TimeUnit.SECONDS));
            long tookMs = (System.nanoTime() - startNs) / 1_000_000;
            assertTrue(tookMs < 1_000, "took " + tookMs + " ms");
        }
    }

    @Test
    void aTimeoutClosesTheConnection() throws Exception {
        try (RawServer engine = new RawServer(RawServer.SILENCE)) {
            CallHarness.call(config(engine.url(), "\"timeout_ms\":200"), "{}");

            assertTrue(engine.clientClosed.await(1, TimeUnit.SECONDS));
        }
    }
}
