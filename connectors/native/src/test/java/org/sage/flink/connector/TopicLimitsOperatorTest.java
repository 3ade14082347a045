package org.sage.flink.connector;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.wire.CounterDelta;
import org.sage.flink.wire.WireRecord;

class TopicLimitsOperatorTest {

    private static final long DAY_MS = 86_400_000;
    private static final TopicLimits LIMITS = new TopicLimits(1_000, DAY_MS, 3_600_000);

    private final List<byte[]> out = new ArrayList<>();
    private final List<byte[]> failed = new ArrayList<>();

    @Test
    void aRecordWithinTheLimitsGoesOnUnchanged() throws Exception {
        byte[] record = record(new byte[100], System.currentTimeMillis(), Map.of());

        run(false, record);

        assertArrayEquals(record, out.get(0));
        assertTrue(failed.isEmpty());
    }

    @Test
    void aRecordLargerThanTheTopicTakesIsADeadLetterAndCounted() throws Exception {
        byte[] value = new byte[2_000];

        run(false, record(value, 5, Map.of("h", "x".getBytes(UTF_8))));

        WireRecord letter = WireRecord.decode(failed.get(0));
        assertArrayEquals(value, letter.value());
        assertEquals("x", header(letter, "h"));
        assertEquals("r", header(letter, "sage.dead-letter.id"));
        assertEquals("out", header(letter, "sage.dead-letter.step"));
        assertEquals("bytes", header(letter, "sage.dead-letter.encoding"));
        assertEquals("null", header(letter, "sage.dead-letter.key"));
        assertEquals("job", header(letter, "sage.dead-letter.job"));
        String reason = header(letter, "sage.dead-letter.reason");
        assertTrue(reason.endsWith("topic 't' takes at most 1000 (max.message.bytes)"), reason);
        Map<String, Long> delta = new HashMap<>();
        CounterDelta.addTo(delta, out.get(0));
        assertEquals(Map.of("out.read", 1L, "out.dead_lettered", 1L), delta);
    }

    @Test
    void aValueThatIsNotEncodedIsADeadLetterInMessagePack() throws Exception {
        byte[] record;
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(9).packString("r").packMapHeader(1).packString("a").packInt(1);
            packer.packLong(5).packNil().packMapHeader(0).packString("origin");
            packer.packString("upsert").packString("").packString("");
            record = packer.toByteArray();
        }

        run(false, record);

        WireRecord letter = WireRecord.decode(failed.get(0));
        assertArrayEquals(new byte[] {(byte) 0x81, (byte) 0xa1, 'a', 1}, letter.value());
        assertEquals("msgpack", header(letter, "sage.dead-letter.encoding"));
        assertEquals("origin", header(letter, "sage.dead-letter.origin"));
    }

    @Test
    void aTimestampThatTheTopicDoesNotTakeMovesToAHeader() throws Exception {
        long oldMs = System.currentTimeMillis() - 2 * DAY_MS;

        run(false, record(new byte[1], oldMs, Map.of()));

        WireRecord moved = WireRecord.decode(out.get(0));
        assertEquals(0, moved.timestampMs());
        assertEquals(String.valueOf(oldMs), header(moved, "sage-timestamp-ms"));
    }

    @Test
    void aDeadLetterThatIsTooLargeLosesItsValue() throws Exception {
        Map<String, byte[]> headers = new LinkedHashMap<>();
        headers.put("sage.dead-letter.encoding", "bytes".getBytes(UTF_8));
        headers.put("h", "x".getBytes(UTF_8));

        run(true, record(new byte[2_000], 0, headers));

        WireRecord letter = WireRecord.decode(out.get(0));
        assertTrue(failed.isEmpty());
        assertEquals("omitted", header(letter, "sage.dead-letter.encoding"));
        assertEquals("x", header(letter, "h"));
        assertTrue(new String(letter.value(), UTF_8).startsWith("the message has 2"));
    }

    @Test
    void aDeadLetterWithLargeHeadersLosesThemToo() throws Exception {
        Map<String, byte[]> headers = new LinkedHashMap<>();
        headers.put("sage.dead-letter.encoding", "bytes".getBytes(UTF_8));
        headers.put("h", new byte[2_000]);

        run(true, record(new byte[2_000], 0, headers));

        WireRecord letter = WireRecord.decode(out.get(0));
        assertNull(letter.headers().get("h"));
        assertEquals("omitted", header(letter, "sage.dead-letter.encoding"));
    }

    private void run(boolean deadLetters, byte[] record) throws Exception {
        TopicLimitsOperator operator =
                new TopicLimitsOperator(() -> LIMITS, "t", "out", "job", "run", deadLetters);
        try (OneInputStreamOperatorTestHarness<byte[], byte[]> harness =
                new OneInputStreamOperatorTestHarness<>(operator)) {
            harness.open();
            harness.processElement(new StreamRecord<>(record));
            harness.extractOutputValues().forEach(out::add);
            var side = harness.getSideOutput(TopicLimitsOperator.FAILED);
            if (side != null) {
                side.forEach(element -> failed.add(element.getValue()));
            }
        }
    }

    private static byte[] record(byte[] value, long timestampMs, Map<String, byte[]> headers) {
        return new WireRecord("r", value, timestampMs, null, headers, "r").encode();
    }

    private static String header(WireRecord record, String name) {
        return new String(record.headers().get(name), UTF_8);
    }
}
