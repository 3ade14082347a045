package org.sage.flink.wire;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A request for a call to the pool. Its wire form is the MessagePack array {@code [carrier bin,
 * request_id str, body bin, headers map str->str]}; in an old checkpoint it has no headers, and
 * where requests are merged it has two more fields, {@code group bin} and {@code vector bin}.
 *
 * @param carrier opaque bytes that the result returns unchanged (normally the record)
 * @param requestId stable across replays, so that the pool can deduplicate a repeated call
 * @param body the JSON request, or the UTF-8 text to embed; empty to pass through without a call
 * @param headers HTTP headers of the request, names in lower case; mutable
 * @param group requests of one group may share an answer; empty where this one may not
 * @param vector unit vector of the request, as long as those of its group; null without a group
 */
public record CallRequest(
        byte[] carrier,
        String requestId,
        byte[] body,
        Map<String, String> headers,
        String group,
        float[] vector) {

    public static final String REQUEST_ID = "x-request-id";
    public static final String TENANT = "x-sage-tenant";
    public static final String JOB = "x-sage-job";
    public static final String PRIORITY = "x-sage-priority";
    public static final String CACHE = "x-sage-cache";
    /** Milliseconds since the epoch. */
    public static final String DEADLINE = "x-sage-deadline-ms";
    public static final String SOFT_DEADLINE = "x-sage-soft-deadline-ms";

    private static final String FORM = "not an array of [carrier, request_id, body, headers]";
    private static final int FIELDS = 4;
    private static final int FIELDS_MERGEABLE = 6;

    /** A request that shares no answer. */
    public CallRequest(
            byte[] carrier, String requestId, byte[] body, Map<String, String> headers) {
        this(carrier, requestId, body, headers, "", null);
    }

    /**
     * The request in these bytes.
     *
     * @throws IllegalArgumentException when they are not a call request
     */
    public static CallRequest decode(byte[] data) {
        try {
            PackedReader reader = new PackedReader(data);
            int fields = reader.arrayHeader();
            if (fields != FIELDS && fields != FIELDS - 1 && fields != FIELDS_MERGEABLE) {
                throw new IllegalArgumentException(FORM);
            }
            byte[] carrier = WireRecord.upgrade(reader.bytes());
            String requestId = reader.string();
            byte[] body = reader.bytes();
            Map<String, String> headers =
                    fields >= FIELDS ? headers(reader) : defaultHeaders(requestId);
            if (fields != FIELDS_MERGEABLE) {
                return new CallRequest(carrier, requestId, body, headers);
            }
            String group = new String(reader.bytes(), StandardCharsets.ISO_8859_1);
            float[] vector = floats(reader.bytes());
            return new CallRequest(carrier, requestId, body, headers, group, vector);
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException(FORM + ": " + e.getMessage(), e);
        }
    }

    /** The wire form of a request that shares no answer. */
    public byte[] encode() {
        PackedWriter writer = new PackedWriter(carrier.length + body.length + 512);
        writer.arrayHeader(FIELDS);
        writer.bytes(carrier).string(requestId).bytes(body);
        writer.mapHeader(headers.size());
        headers.forEach((name, value) -> writer.string(name).string(value));
        return writer.toByteArray();
    }

    public boolean isEmpty() {
        return body == null || body.length == 0;
    }

    public boolean isMergeable() {
        return !group.isEmpty();
    }

    /** Sets the deadline header unless the record has a deadline of its own. */
    public void setDefaultDeadline(long deadlineMs) {
        headers.putIfAbsent(DEADLINE, Long.toString(deadlineMs));
    }

    /** The time after which a result is useless; {@link Long#MAX_VALUE} without a deadline. */
    public long deadlineMs() {
        return timeMs(DEADLINE);
    }

    /** The time in a header; {@link Long#MAX_VALUE} without one. */
    public long timeMs(String name) {
        String header = headers.getOrDefault(name, "");
        return header.matches("\\d{1,15}") ? Long.parseLong(header) : Long.MAX_VALUE;
    }

    private static float[] floats(byte[] packed) {
        float[] numbers = new float[packed.length / Float.BYTES];
        ByteBuffer.wrap(packed).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(numbers);
        return numbers;
    }

    private static Map<String, String> headers(PackedReader reader) {
        int size = reader.mapHeader();
        Map<String, String> headers = new LinkedHashMap<>();
        for (int i = 0; i < size; i++) {
            headers.put(reader.string(), reader.string());
        }
        return headers;
    }

    private static Map<String, String> defaultHeaders(String requestId) {
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put(REQUEST_ID, requestId);
        headers.put("idempotency-key", requestId);
        return headers;
    }
}
