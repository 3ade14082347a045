package org.sage.flink.window;

import java.time.Duration;
import java.util.List;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.datastream.WindowedStream;
import org.apache.flink.streaming.api.windowing.assigners.GlobalWindows;
import org.apache.flink.streaming.api.windowing.windows.Window;
import org.apache.flink.util.OutputTag;
import org.sage.flink.keyed.KeyedInputOperator;
import org.sage.flink.keyed.Keys;
import org.sage.flink.time.RestoredWatermarkOperator;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.VectorField;

/**
 * A window step: {@link #checked} refuses what it cannot take, {@link #wire} is Flink's own window
 * operator over what is left, and {@link #late} are the records whose windows have ended.
 */
public final class WindowStep {

    private static final OutputTag<byte[]> LATE =
            new OutputTag<>("late", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private WindowStep() {}

    /** The records that the window takes, and counter deltas of those that it refuses. */
    public static SingleOutputStreamOperator<byte[]> checked(DataStream<byte[]> in, String config) {
        WindowConfig settings = WindowConfig.of(config);
        String name = settings.step() + ".input";
        List<String> numbers = settings.aggregates().numbers();
        List<VectorField> vectors = settings.aggregates().vectors();
        return KeyedInputOperator.wire(in, name, failed(settings), "read", false, numbers, vectors);
    }

    /** The results of the windows: one for each window and key, early ones and updates. */
    public static SingleOutputStreamOperator<byte[]> wire(DataStream<byte[]> in, String config) {
        WindowConfig settings = WindowConfig.of(config);
        String watermark = settings.step() + ".watermark";
        KeyedStream<byte[], String> keyed =
                RestoredWatermarkOperator.keyBy(in, new Keys.OfRecord(), watermark);
        if (!settings.isTimed()) {
            return results(keyed.window(GlobalWindows.create()), settings);
        }
        return results(
                keyed.window(settings.assigner())
                        .allowedLateness(Duration.ofMillis(settings.latenessMs()))
                        .sideOutputLateData(LATE),
                settings);
    }

    private static <W extends Window> SingleOutputStreamOperator<byte[]> results(
            WindowedStream<byte[], String, W> windows, WindowConfig settings) {
        AccumulatorsType accumulators = new AccumulatorsType(settings.aggregates());
        return windows.trigger(new WindowTrigger<>(settings))
                .aggregate(
                        new WindowAggregate(settings.aggregates()),
                        new WindowResult<>(settings),
                        accumulators,
                        accumulators,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO)
                .name(settings.step())
                .uid(settings.step());
    }

    /** The late records of a stream that {@link #wire} made. */
    public static DataStream<byte[]> late(SingleOutputStreamOperator<byte[]> windows) {
        return windows.getSideOutput(LATE);
    }

    /** The late records as dead letters. */
    public static SingleOutputStreamOperator<byte[]> lateLetters(
            DataStream<byte[]> late, String config, String reason) {
        WindowConfig settings = WindowConfig.of(config);
        FailedRecords failed = failed(settings);
        String name = settings.step() + ".late";
        return late.map(
                        record -> failed.letter(record, reason),
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO)
                .name(name)
                .uid(name);
    }

    private static FailedRecords failed(WindowConfig settings) {
        return new FailedRecords(settings.step(), settings.job(), settings.run());
    }
}
