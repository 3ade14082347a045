package org.sage.flink.window;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.keyed.Keys;

/**
 * The record of a window: {@code {key, start_ms, end_ms, <aggregate>: <result>, ...}}, with {@code
 * early} before the aggregates where the step has early results.
 *
 * <p>Its id is {@code step/start_ms/key}, the same whenever the window is emitted, so an update takes
 * the place of the result before. Its time is the last millisecond of the window. The Python twin is
 * {@code sage_flink/flow/stateful/window_state.py}.
 */
final class WindowResult
        extends ProcessWindowFunction<Accumulator[], byte[], String, TimeWindow> {

    private static final long serialVersionUID = 1L;

    /** A longer key, or one that is no text, is a hash in the id. */
    private static final int KEY_BYTES_IN_ID = 200;

    private static final int RECORD_FIELDS = 9;
    private static final int WINDOW_FIELDS = 3;

    private final String step;
    private final Aggregates aggregates;
    private final boolean hasEarly;

    WindowResult(WindowConfig config) {
        step = config.step();
        aggregates = config.aggregates();
        hasEarly = config.hasEarlyResults();
    }

    @Override
    public void process(
            String flinkKey, Context context, Iterable<Accumulator[]> input, Collector<byte[]> out)
            throws IOException {
        TimeWindow window = context.window();
        byte[] key = Keys.bytes(flinkKey);
        String text = text(key);
        String inId = text != null && key.length <= KEY_BYTES_IN_ID ? text : hash(key);
        String id = step + "/" + window.getStart() + "/" + inId;
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(RECORD_FIELDS).packString(id);
            boolean isEarly = context.currentWatermark() < window.maxTimestamp();
            packValue(packer, text, key, window, isEarly, input.iterator().next());
            packer.packLong(window.maxTimestamp());
            packer.packBinaryHeader(key.length).writePayload(key);
            packer.packMapHeader(0).packString(id).packString("upsert");
            packer.packString("").packString("");
            out.collect(packer.toByteArray());
        }
    }

    private void packValue(
            MessageBufferPacker packer,
            String text,
            byte[] key,
            TimeWindow window,
            boolean isEarly,
            Accumulator[] accumulators)
            throws IOException {
        List<Aggregates.Aggregate> all = aggregates.all();
        int size = WINDOW_FIELDS + (hasEarly ? 1 : 0) + all.size();
        for (Accumulator accumulator : accumulators) {
            size += accumulator.omitted() > 0 ? 1 : 0;
        }
        packer.packMapHeader(size).packString("key");
        if (text == null) {
            packer.packBinaryHeader(key.length).writePayload(key);
        } else {
            packer.packString(text);
        }
        packer.packString("start_ms").packLong(window.getStart());
        packer.packString("end_ms").packLong(window.getEnd());
        if (hasEarly) {
            packer.packString("early").packBoolean(isEarly);
        }
        for (int i = 0; i < accumulators.length; i++) {
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
