package org.sage.flink.join;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.streaming.util.KeyedTwoInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.WireRecord;

/** A left join; the value of a version is its id. */
class TemporalJoinOperatorTest {

    private static final byte[] KEY = {'k'};

    private static KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness(
            boolean leftAlone) throws Exception {
        FailedRecords failed = new FailedRecords("join", "job", "run");
        JoinConfig settings = new JoinConfig(failed, 0, 0, 0, leftAlone, false, null);
        return new KeyedTwoInputStreamOperatorTestHarness<>(
                new TemporalJoinOperator(settings),
                new Keys.OfRecord(),
                new Keys.OfRecord(),
                Types.STRING);
    }

    private static StreamRecord<byte[]> at(String id, long timestampMs) {
        byte[] value = id.getBytes(StandardCharsets.UTF_8);
        WireRecord record = new WireRecord(id, value, timestampMs, KEY, Map.of(), "");
        return new StreamRecord<>(record.encode(), timestampMs);
    }

    private static StreamRecord<byte[]> delete(long timestampMs) {
        WireRecord record =
                new WireRecord("d", null, timestampMs, KEY, Map.of(), "", "delete", "k", "");
        return new StreamRecord<>(record.encode(), timestampMs);
    }

    /** The results so far as {@code id=version}, with the watermarks between them as numbers. */
    private static List<Object> output(
            KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness) {
        RecordFields fields = new RecordFields(List.of("right"));
        List<Object> found = new ArrayList<>();
        for (Object element : harness.getOutput()) {
            if (element instanceof Watermark mark) {
                found.add(mark.getTimestamp());
            } else if (element instanceof StreamRecord<?> record) {
                RecordFields.Found one = fields.read((byte[]) record.getValue());
                byte[] right = one.fields()[0];
                assertEquals(record.getTimestamp(), one.timestampMs());
                // A binary value of less than 256 bytes has two bytes before it.
                String version =
                        right == null
                                ? ""
                                : new String(right, 2, right.length - 2, StandardCharsets.UTF_8);
                found.add(one.id() + "=" + version);
            }
        }
        harness.getOutput().clear();
        return found;
    }

    private static int versionCount(
            KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness)
            throws Exception {
        TemporalJoinOperator operator = (TemporalJoinOperator) harness.getOperator();
        List<Long> times = new ArrayList<>();
        operator.getKeyedStateBackend()
                .applyToAllKeys(
                        VoidNamespace.INSTANCE,
                        VoidNamespaceSerializer.INSTANCE,
                        TemporalJoinOperator.VERSIONS,
                        (key, versions) -> versions.keys().forEach(times::add));
        return times.size();
    }

    private static int lateCount(
            KeyedTwoInputStreamOperatorTestHarness<String, byte[], byte[], byte[]> harness) {
        var late = harness.getSideOutput(JoinStep.LATE);
        return late == null ? 0 : late.size();
    }

    @Test
    void aLeftRecordWaitsForTheVersionOfItsTime() throws Exception {
        try (var harness = harness(true)) {
            harness.open();
            harness.processElement1(at("l/1", 99));
            harness.processElement1(at("l/2", 100));
            harness.processElement1(at("l/3", 149));
            harness.processElement1(at("l/4", 150));
            harness.processElement2(at("v2", 150));
            harness.processElement2(at("v1", 100));
            harness.processWatermark1(new Watermark(1_000));
            assertEquals(List.of(), output(harness));

            harness.processWatermark2(new Watermark(149));
            assertEquals(List.of("l/1=", "l/2=v1", "l/3=v1", 149L), output(harness));
            harness.processWatermark2(new Watermark(1_000));
            assertEquals(List.of("l/4=v2", 1_000L), output(harness));
        }
    }

    @Test
    void aDeleteEndsAVersionAndOfOneTimeTheLastArrivalIsValid() throws Exception {
        try (var harness = harness(false)) {
            harness.open();
            harness.processElement2(at("v1", 100));
            harness.processElement2(at("v1 again", 100));
            harness.processElement2(delete(200));
            harness.processElement2(at("v2", 300));
            for (long timestampMs : List.of(99, 150, 250, 350)) {
                harness.processElement1(at("l/" + timestampMs, timestampMs));
            }
            harness.processWatermark1(Watermark.MAX_WATERMARK);
            harness.processWatermark2(new Watermark(260));
            assertEquals(List.of("l/150=v1 again", 260L), output(harness));

            harness.processWatermark2(Watermark.MAX_WATERMARK);
            assertEquals(List.of("l/350=v2", Long.MAX_VALUE), output(harness));
        }
    }

    @Test
    void ofTheOldVersionsOnlyTheNewestIsKeptAndNoDelete() throws Exception {
        try (var harness = harness(true)) {
            harness.open();
            for (long timestampMs = 0; timestampMs < 50; timestampMs++) {
                harness.processElement2(at("v" + timestampMs, timestampMs));
            }
            harness.processElement2(delete(60));
            harness.processWatermark1(new Watermark(55));
            assertEquals(51, versionCount(harness));
            harness.processWatermark2(new Watermark(55));
            assertEquals(2, versionCount(harness));
            harness.processWatermark1(new Watermark(60));
            harness.processWatermark2(new Watermark(60));
            assertEquals(0, versionCount(harness));
            assertEquals(0, harness.numKeyedStateEntries() + harness.numEventTimeTimers());
        }
    }

    @Test
    void aRecordIsLateByTheWatermarkOfItsOwnInputAndAnIdleInputHoldsNothingBack()
            throws Exception {
        try (var harness = harness(true)) {
            harness.open();
            harness.processElement2(at("v1", 100));
            harness.processWatermark1(new Watermark(1_000));
            harness.processElement1(at("late", 1_000));
            harness.processElement1(at("l/1", 1_001));
            harness.processElement2(at("v2", 900));
            assertEquals(1, lateCount(harness));

            harness.processWatermark1(new Watermark(2_000));
            harness.processWatermarkStatus2(WatermarkStatus.IDLE);
            assertEquals(List.of("l/1=v2", 2_000L), output(harness));
            harness.processWatermarkStatus2(WatermarkStatus.ACTIVE);
            harness.processElement2(at("late", 2_000));
            assertEquals(2, lateCount(harness));
        }
    }

    @Test
    void aSavepointOfAnIntervalJoinIsRefused() throws Exception {
        JoinConfig settings =
                new JoinConfig(new FailedRecords("join", "job", "run"), 0, 0, 0, true, false, null);
        OperatorSubtaskState state;
        try (var interval =
                new KeyedTwoInputStreamOperatorTestHarness<>(
                        new IntervalJoinOperator(settings),
                        new Keys.OfRecord(),
                        new Keys.OfRecord(),
                        Types.STRING)) {
            interval.open();
            state = interval.snapshot(1, 1);
        }
        try (var harness = harness(true)) {
            assertThrows(IllegalStateException.class, () -> harness.initializeState(state));
        }
    }

    @Test
    void aRestartForgetsNeitherVersionsNorRecordsNorWhatIsLate() throws Exception {
        OperatorSubtaskState state;
        try (var harness = harness(true)) {
            harness.open();
            harness.processElement2(at("v1", 100));
            harness.processElement2(at("v2", 300));
            harness.processElement1(at("l/1", 200));
            harness.processWatermark1(new Watermark(150));
            harness.processWatermark2(new Watermark(160));
            output(harness);
            state = harness.snapshot(1, 1);
        }
        try (var harness = harness(true)) {
            harness.initializeState(state);
            harness.open();
            harness.processElement1(at("late", 150));
            harness.processElement2(at("late", 160));
            assertEquals(2, lateCount(harness));
            harness.processElement1(at("l/2", 310));
            harness.processWatermark1(Watermark.MAX_WATERMARK);
            harness.processWatermark2(Watermark.MAX_WATERMARK);
            assertEquals(List.of("l/1=v1", "l/2=v2", Long.MAX_VALUE), output(harness));
        }
    }
}
