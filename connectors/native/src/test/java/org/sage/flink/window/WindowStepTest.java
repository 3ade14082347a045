package org.sage.flink.window;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.transformations.OneInputTransformation;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessagePack;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.WireRecord;

/** The window operator over a snapshot: what was counted before it goes on behind it. */
class WindowStepTest {

    private static final RecordFields RESULT =
            new RecordFields(List.of("start_ms", "end_ms", "early", "n"));

    @Test
    void aCountWindowAndItsIndexGoOnBehindASnapshot() throws Exception {
        String config = config("count", 0, 3, 0, 2);

        List<String> results =
                overSnapshot(config, new long[] {1, 2, 3, 4}, new long[] {5, 6}, new long[0]);

        assertEquals(
                List.of(
                        "w/0/a [1, 3) early=true n=2",
                        "w/0/a [1, 4) early=false n=3",
                        "| w/1/a [4, 6) early=true n=2",
                        "| w/1/a [4, 7) early=false n=3"),
                results);
    }

    @Test
    void aGlobalWindowGoesOnBehindASnapshotAndEndsWithTheInput() throws Exception {
        String config = config("global", 0, 0, 0, 3);

        List<String> results =
                overSnapshot(
                        config, new long[] {5, 3}, new long[] {9, 1}, new long[] {Long.MAX_VALUE});

        assertEquals(
                List.of("| w/a [3, 10) early=true n=3", "| w/a [1, 10) early=false n=4"), results);
    }

    @Test
    void anEarlyResultByTimeIsDueBehindASnapshot() throws Exception {
        String config = config("tumbling", 100, 0, 10, 0);

        List<String> results =
                overSnapshot(
                        config, new long[] {5, 3}, new long[0], new long[] {8, 9, 30, 98, 99, 200});

        assertEquals(
                List.of("| w/0/a [0, 100) early=true n=2", "| w/0/a [0, 100) early=false n=2"),
                results);
    }

    @Test
    void sessionsThatBecomeOneBehindASnapshotCountAndWaitTogether() throws Exception {
        long[] before = {0, 1, 20, 21};

        List<String> byCount =
                overSnapshot(config("session", 10, 0, 0, 5), before, new long[] {10}, new long[0]);
        List<String> byTime =
                overSnapshot(
                        config("session", 10, 0, 8, 0), before, new long[] {10}, new long[] {7});

        assertEquals(List.of("| w/0/a [0, 31) early=true n=5"), byCount);
        assertEquals(List.of("| w/0/a [0, 31) early=true n=5"), byTime);
    }

    @Test
    void noStateIsLeftOfAWindowThatHasEnded() throws Exception {
        for (String config :
                List.of(config("tumbling", 100, 0, 10, 0), config("session", 10, 0, 0, 5))) {
            try (Harness harness = new Harness(config)) {
                harness.open();
                send(harness, 5);
                send(harness, 14);
                send(harness, 3);
                harness.processWatermark(500);

                assertEquals(0, harness.numKeyedStateEntries());
                assertEquals(0, harness.numEventTimeTimers());
            }
        }
    }

    /** The results for the times before the snapshot, and with a bar in front those behind it. */
    private static List<String> overSnapshot(
            String config, long[] before, long[] behind, long[] watermarks) throws Exception {
        List<String> results = new ArrayList<>();
        OperatorSubtaskState snapshot;
        try (Harness harness = new Harness(config)) {
            harness.open();
            for (long ms : before) {
                send(harness, ms);
            }
            snapshot = harness.snapshot(1, 1);
            addResults(harness, "", results);
        }
        try (Harness harness = new Harness(config)) {
            harness.initializeState(snapshot);
            harness.open();
            for (long ms : behind) {
                send(harness, ms);
            }
            for (long ms : watermarks) {
                harness.processWatermark(ms);
            }
            addResults(harness, "| ", results);
        }
        return results;
    }

    private static String config(
            String kind, long sizeMs, long recordsMax, long everyMs, long everyRecords) {
        boolean isTimed = sizeMs > 0;
        String span = isTimed ? "" : "{\"name\": \"\", \"kind\": \"span\"}, ";
        return """
                {"step": "w", "job": "j", "run": "r", "kind": "%s", "size_ms": %d, "every_ms": 0,
                 "records_max": %d, "lateness_ms": 0, "early_every_ms": %d,
                 "early_every_records": %d,
                 "aggregates": [%s{"name": "n", "kind": "count", "field": ""}]}
                """
                .formatted(kind, sizeMs, recordsMax, everyMs, everyRecords, span);
    }

    private static void send(Harness harness, long ms) throws Exception {
        WireRecord record =
                new WireRecord("id", new byte[] {1}, ms, "a".getBytes(), Map.of(), "");
        harness.processElement(new StreamRecord<>(record.encode(), ms));
    }

    private static void addResults(Harness harness, String before, List<String> results)
            throws Exception {
        for (byte[] out : harness.extractOutputValues()) {
            RecordFields.Found found = RESULT.read(out);
            List<Object> values = new ArrayList<>(List.of(before, found.id()));
            for (byte[] packed : found.fields()) {
                values.add(MessagePack.newDefaultUnpacker(packed).unpackValue());
            }
            results.add("%s%s [%s, %s) early=%s n=%s".formatted(values.toArray()));
        }
    }

    private static final class Harness
            extends KeyedOneInputStreamOperatorTestHarness<String, byte[], byte[]> {

        Harness(String config) throws Exception {
            super(operator(config), new Keys.OfRecord(), Types.STRING);
        }

        @SuppressWarnings("unchecked")
        private static OneInputStreamOperator<byte[], byte[]> operator(String config) {
            var source =
                    StreamExecutionEnvironment.getExecutionEnvironment()
                            .fromData(
                                    List.of(new byte[0]),
                                    PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
            var windows =
                    (OneInputTransformation<byte[], byte[]>)
                            WindowStep.wire(source, config).getTransformation();
            return windows.getOperator();
        }
    }
}
