package org.sage.flink.wire;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.msgpack.value.ValueType;

/**
 * Dead letters as {@code sage_flink/common/dead_letters.py} writes them: messages with the key, the
 * headers and the value of the failed record, and the failure in headers named {@code
 * sage.dead-letter.<field>}.
 */
public final class DeadLetterMessage {

    private static final String PREFIX = "sage.dead-letter.";
    private static final int FIELD_BYTES_MAX = 8_000;
    private static final int ID_CHARS_MAX = 1_000;

    private DeadLetterMessage() {}

    /**
     * The message of a record of {@code job} that {@code step} could not take, in its wire form. A
     * value that is neither bytes nor nil is in MessagePack.
     *
     * @param run the Flink job, another one than {@code job} in a replay
     * @throws IllegalArgumentException when the bytes are not a wire record
     */
    public static byte[] of(
            byte[] record, String step, String reason, int attempts, String job, String run) {
        try {
            PackedReader reader = new PackedReader(record);
            reader.arrayHeader();
            String id = reader.string();
            ValueType type = reader.type();
            byte[] value;
            if (type == ValueType.NIL || type == ValueType.BINARY) {
                value = reader.bytes();
            } else {
                int from = reader.position();
                reader.skip();
                value = Arrays.copyOfRange(record, from, reader.position());
            }
            long timestampMs = reader.wholeNumber();
            byte[] key = reader.bytes();
            Map<String, byte[]> headers = new LinkedHashMap<>();
            WireRecord.headers(reader)
                    .forEach((name, content) -> putUnlessOwn(headers, name, content));
            String origin = reader.string();
            put(headers, "id", id);
            put(headers, "step", step);
            put(headers, "reason", reason);
            put(headers, "attempts", Integer.toString(attempts));
            put(headers, "job", job);
            put(headers, "run", run);
            put(headers, "origin", origin.isEmpty() ? id : origin);
            put(headers, "timestamp-ms", Long.toString(timestampMs));
            put(headers, "encoding", encoding(type));
            if (key == null) {
                put(headers, "key", "null");
            }
            if (reader.string().equals("delete")) {
                put(headers, "kind", "delete");
                put(headers, "document", reader.string());
                put(headers, "version", reader.string());
            }
            return new WireRecord(id, value, 0, key, headers, "").encode();
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a wire record: " + e.getMessage(), e);
        }
    }

    /** The message with a note in place of its value. */
    public static byte[] withoutValue(WireRecord message, String note) {
        return omitted(message, message.id(), message.key(), message.headers(), note);
    }

    /** The same without the key and the headers of the failed record, and with its names cut. */
    public static byte[] withoutContents(WireRecord message, String note) {
        Map<String, byte[]> headers = new LinkedHashMap<>();
        message.headers()
                .forEach(
                        (name, content) -> {
                            if (name.startsWith(PREFIX)) {
                                int length = Math.min(content.length, FIELD_BYTES_MAX);
                                headers.put(name, Arrays.copyOf(content, length));
                            }
                        });
        put(headers, "key", "null");
        String id = message.id().substring(0, Math.min(message.id().length(), ID_CHARS_MAX));
        return omitted(message, id, null, headers, note + "; its key and headers were omitted too");
    }

    private static byte[] omitted(
            WireRecord message, String id, byte[] key, Map<String, byte[]> kept, String note) {
        Map<String, byte[]> headers = new LinkedHashMap<>(kept);
        put(headers, "encoding", "omitted");
        byte[] value = note.getBytes(StandardCharsets.UTF_8);
        return new WireRecord(id, value, message.timestampMs(), key, headers, "").encode();
    }

    private static String encoding(ValueType type) {
        return switch (type) {
            case NIL -> "null";
            case BINARY -> "bytes";
            default -> "msgpack";
        };
    }

    private static void putUnlessOwn(Map<String, byte[]> headers, String name, byte[] content) {
        if (!name.startsWith(PREFIX)) {
            headers.put(name, content);
        }
    }

    private static void put(Map<String, byte[]> headers, String field, String text) {
        headers.put(PREFIX + field, text.getBytes(StandardCharsets.UTF_8));
    }
}
