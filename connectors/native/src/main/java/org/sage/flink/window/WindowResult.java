package org.sage.flink.window;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.streaming.api.windowing.windows.Window;
import org.apache.flink.util.Collector;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.keyed.Keys;

/**
 * The record of a window: {@code {key, start_ms, end_ms, <aggregate>: <result>, ...}}, with {@code
 * early} before the aggregates where the step has early results.
 *
 * <p>Its id is {@code step/start_ms/key}, the same whenever the window is emitted, so an update takes
 * the place of the result before. Its time is the last millisecond of the window. A count window has
 * its {@code index} among those of its key in the place of its start, a global window has none. The
 * Python twin is {@code sage_flink/flow/stateful/open_window.py}.
 */
final class WindowResult<W extends Window>
        extends ProcessWindowFunction<Accumulator[], byte[], String, W> {

    private static final long serialVersionUID = 1L;

    /** A longer key, or one that is no text, is a hash in the id. */
    private static final int KEY_BYTES_IN_ID = 200;

    private static final int RECORD_FIELDS = 9;
    private static final int WINDOW_FIELDS = 3;

    /** How many count windows of the key have ended. */
    private static final ValueStateDescriptor<Long> INDEX =
            new ValueStateDescriptor<>("index", LongSerializer.INSTANCE);

    private final WindowConfig config;

    WindowResult(WindowConfig config) {
        this.config = config;
    }

    /** Where a window is, in its id and its value; {@code index} null for any but a count window. */
    private record Place(String inId, Long index, long startMs, long endMs, boolean isEarly) {}

    @Override
    public void process(
            String flinkKey, Context context, Iterable<Accumulator[]> input, Collector<byte[]> out)
            throws Exception {
        Accumulator[] accumulators = input.iterator().next();
        Place place = place(context, accumulators);
        byte[] key = Keys.bytes(flinkKey);
        String text = text(key);
        String inId = text != null && key.length <= KEY_BYTES_IN_ID ? text : hash(key);
        String id = config.step() + "/" + place.inId + inId;
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(RECORD_FIELDS).packString(id);
            packValue(packer, text, key, place, accumulators);
            packer.packLong(place.endMs - 1);
            packer.packBinaryHeader(key.length).writePayload(key);
            packer.packMapHeader(0).packString(id).packString("upsert");
            packer.packString("").packString("");
            out.collect(packer.toByteArray());
        }
    }

    private Place place(Context context, Accumulator[] accumulators) throws Exception {
        boolean isEarly = context.currentWatermark() < context.window().maxTimestamp();
        if (context.window() instanceof TimeWindow window) {
            long startMs = window.getStart();
            return new Place(startMs + "/", null, startMs, window.getEnd(), isEarly);
        }
        SpanAccumulator span = (SpanAccumulator) accumulators[0];
        if (config.recordsMax() == 0) {
            return new Place("", null, span.startMs(), span.endMs(), isEarly);
        }
        ValueState<Long> ended = context.globalState().getState(INDEX);
        long index = ended.value() == null ? 0 : ended.value();
        isEarly &= span.records() < config.recordsMax();
        if (!isEarly) {
            ended.update(index + 1);
        }
        return new Place(index + "/", index, span.startMs(), span.endMs(), isEarly);
    }

    private void packValue(
            MessageBufferPacker packer,
            String text,
            byte[] key,
            Place place,
            Accumulator[] accumulators)
            throws IOException {
        List<Aggregates.Aggregate> all = config.aggregates().all();
        int first = config.isTimed() ? 0 : 1; // behind the span
        int size = WINDOW_FIELDS + all.size() - first;
        size += place.index == null ? 0 : 1;
        size += config.hasEarlyResults() ? 1 : 0;
        for (Accumulator accumulator : accumulators) {
            size += accumulator.omitted() > 0 ? 1 : 0;
        }
        packer.packMapHeader(size).packString("key");
        if (text == null) {
            packer.packBinaryHeader(key.length).writePayload(key);
        } else {
            packer.packString(text);
        }
        if (place.index != null) {
            packer.packString("index").packLong(place.index);
        }
        packer.packString("start_ms").packLong(place.startMs);
        packer.packString("end_ms").packLong(place.endMs);
        if (config.hasEarlyResults()) {
            packer.packString("early").packBoolean(place.isEarly);
        }
        for (int i = first; i < accumulators.length; i++) {
            packer.packString(all.get(i).name());
            accumulators[i].packResult(packer);
            if (accumulators[i].omitted() > 0) {
                packer.packString(all.get(i).name() + "_omitted");
                packer.packLong(accumulators[i].omitted());
            }
        }
    }

    /** The key as text; null where it is not in UTF-8. */
    private static String text(byte[] key) {
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(key)).toString();
        } catch (CharacterCodingException e) {
            return null;
        }
    }

    private static String hash(byte[] key) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(key);
            return "sha256:" + HexFormat.of().formatHex(digest);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }
}
