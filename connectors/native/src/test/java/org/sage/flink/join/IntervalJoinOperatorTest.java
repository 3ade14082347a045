package org.sage.flink.join;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.streaming.util.KeyedTwoInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.sage.flink.keyed.Keys;
import org.sage.flink.testing.FakePool;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.VectorField;
import org.sage.flink.wire.WireRecord;

/** A full join; the right record is at most 10 ms earlier and 20 ms later than the left one. */
class IntervalJoinOperatorTest {

    private static final JoinConfig FULL =
            new JoinConfig(new FailedRecords("join", "job", "run"), 10, 20, 30, true, true, null);

    private static final byte[] KEY = {'k'};

    private static KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness()
            throws Exception {
        return harness(FULL);
    }

    private static KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness(
            JoinConfig settings) throws Exception {
        return new KeyedTwoInputStreamOperatorTestHarness<>(
                new IntervalJoinOperator(settings),
                new Keys.OfRecord(),
                new Keys.OfRecord(),
                Types.STRING);
    }

    private static StreamRecord<byte[]> at(String id, long timestampMs) {
        WireRecord record = new WireRecord(id, new byte[0], timestampMs, KEY, Map.of(), "");
        return new StreamRecord<>(record.encode(), timestampMs);
    }

    /** The ids of the results so far, with the watermarks between them as numbers. */
    private static List<Object> output(
            KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness) {
        List<Object> found = new ArrayList<>();
        for (Object element : harness.getOutput()) {
            if (element instanceof Watermark mark) {
                found.add(mark.getTimestamp());
            } else if (element instanceof StreamRecord<?> record) {
                found.add(JoinSide.of((byte[]) record.getValue()).id());
            }
        }
        harness.getOutput().clear();
        return found;
    }

    private static int lateCount(
            KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness) {
        var late = harness.getSideOutput(JoinStep.LATE);
        return late == null ? 0 : late.size();
    }

    @Test
    void aRecordIsLateByTheWatermarkOfItsOwnInput() throws Exception {
        try (var harness = harness()) {
            harness.open();
            harness.processWatermark1(new Watermark(1_000));
            harness.processElement1(at("l/late", 980));
            harness.processElement1(at("l/1", 981));
            harness.processElement2(at("r/1", 100));
            harness.processElement2(at("r/2", 981));

            assertEquals(List.of("join/l/1~r/2"), output(harness));
            assertEquals(1, lateCount(harness));
        }
    }

    @Test
    void theWatermarkOfTheOutputIsBehindEveryResultThatMayFollow() throws Exception {
        try (var harness = harness()) {
            harness.open();
            harness.processElement1(at("l/1", 1_000));
            harness.processElement2(at("r/1", 1_021));
            harness.processWatermark1(new Watermark(2_000));
            harness.processWatermark2(new Watermark(1_029));
            assertEquals(List.of(999L), output(harness));

            harness.processWatermark2(new Watermark(1_030));
            assertEquals(List.of("join/l/1~", 1_000L), output(harness));

            harness.processWatermark1(Watermark.MAX_WATERMARK);
            harness.processWatermark2(Watermark.MAX_WATERMARK);
            assertEquals(List.of("join/~r/1", Long.MAX_VALUE), output(harness));
        }
    }

    @Test
    void anIdleInputHoldsNothingBack() throws Exception {
        try (var harness = harness()) {
            harness.open();
            harness.processElement1(at("l/1", 1_000));
            harness.processWatermark1(new Watermark(2_000));
            assertEquals(List.of(), output(harness));

            harness.processWatermarkStatus2(WatermarkStatus.IDLE);
            assertEquals(List.of("join/l/1~", 1_970L), output(harness));

            harness.processWatermarkStatus2(WatermarkStatus.ACTIVE);
            harness.processElement2(at("r/1", 1_000));
            assertEquals(1, lateCount(harness));
        }
    }

    @Test
    void afterARestartTheSameRecordsAreLateAndNoneIsForgotten() throws Exception {
        OperatorSubtaskState state;
        try (var harness = harness()) {
            harness.open();
            harness.processElement1(at("l/1", 1_000));
            harness.processElement1(at("l/2", 1_000));
            harness.processElement2(at("r/1", 1_001));
            harness.processElement1(at("l/3", 1_015));
            harness.processWatermark1(new Watermark(1_010));
            harness.processWatermark2(new Watermark(1_005));
            state = harness.snapshot(1, 1);
        }
        try (var harness = harness()) {
            harness.initializeState(state);
            harness.open();
            harness.processElement1(at("l/late", 990));
            harness.processElement2(at("r/late", 995));
            assertEquals(2, lateCount(harness));

            harness.processElement2(at("r/2", 1_020));
            assertEquals(
                    List.of("join/l/1~r/2", "join/l/2~r/2", "join/l/3~r/2"), output(harness));

            harness.processWatermark1(Watermark.MAX_WATERMARK);
            harness.processWatermark2(Watermark.MAX_WATERMARK);
            assertTrue(output(harness).stream().noneMatch(String.class::isInstance));
            assertEquals(0, harness.numKeyedStateEntries());
        }
    }

    @Test
    void anotherIntervalAndKindAppliesToTheRecordsOfASavepoint() throws Exception {
        JoinConfig inner =
                new JoinConfig(
                        new FailedRecords("join", "job", "run"),
                        10,
                        200,
                        200,
                        false,
                        false,
                        null);
        OperatorSubtaskState state;
        try (var harness = harness(inner)) {
            harness.open();
            harness.processElement1(at("l/met", 1_000));
            harness.processElement2(at("r/met", 1_150));
            harness.processElement1(at("l/1", 1_200));
            state = harness.snapshot(1, 1);
        }
        try (var harness = harness()) {
            harness.initializeState(state);
            harness.open();
            harness.processElement2(at("r/1", 1_220));
            assertEquals(List.of("join/l/1~r/1"), output(harness));

            harness.processElement1(at("l/2", 1_300));
            harness.processWatermark1(new Watermark(1_330));
            harness.processWatermark2(new Watermark(1_330));
            assertEquals(List.of("join/l/2~", 1_300L), output(harness));
            assertEquals(0, harness.numKeyedStateEntries());
        }
    }

    @Test
    void aConditionOnVectorsMeetsNoRecordOfASavepointThatHasNone() throws Exception {
        Similar near = new Similar(new VectorField("", 2, true), 0.9);
        JoinConfig similar =
                new JoinConfig(
                        new FailedRecords("join", "job", "run"), 10, 20, 30, true, true, near);
        OperatorSubtaskState state;
        try (var harness = harness()) {
            harness.open();
            harness.processElement1(at("l/1", 1_000));
            state = harness.snapshot(1, 1);
        }
        try (var harness = harness(similar)) {
            harness.initializeState(state);
            harness.open();
            harness.processElement2(at("r/1", 1_001, 1, 0));
            harness.processElement1(at("l/2", 1_002, 10, 1));
            harness.processElement1(at("l/3", 1_003, 0, 1));
            assertEquals(List.of("join/l/2~r/1"), output(harness));

            harness.processWatermark1(Watermark.MAX_WATERMARK);
            harness.processWatermark2(Watermark.MAX_WATERMARK);
            assertEquals(
                    List.of("join/l/1~", "join/l/3~", Long.MAX_VALUE), output(harness));
        }
    }

    private static StreamRecord<byte[]> at(String id, long timestampMs, float... vector) {
        byte[] value = FakePool.vector(vector);
        WireRecord record = new WireRecord(id, value, timestampMs, KEY, Map.of(), "");
        return new StreamRecord<>(record.encode(), timestampMs);
    }

    @Test
    void timesAtTheEndsOfTimeAreTimes() throws Exception {
        try (var harness = harness()) {
            harness.open();
            harness.processElement1(at("l/last", Long.MAX_VALUE));
            harness.processElement2(at("r/last", Long.MAX_VALUE - 5));
            harness.processElement1(at("l/2", Long.MAX_VALUE - 25));
            harness.processElement2(at("r/first", Long.MIN_VALUE + 11));
            assertEquals(List.of("join/l/last~r/last", "join/l/2~r/last"), output(harness));
            harness.processWatermark1(Watermark.MAX_WATERMARK);
            harness.processWatermark2(Watermark.MAX_WATERMARK);
            assertEquals(List.of("join/~r/first", Long.MAX_VALUE), output(harness));
            assertEquals(0, harness.numKeyedStateEntries());
        }
    }
}
