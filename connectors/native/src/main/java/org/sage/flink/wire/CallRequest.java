package org.sage.flink.wire;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A request for a call to the pool. Its wire form is the MessagePack array {@code [carrier bin,
 * request_id str, body bin, headers map str->str]}; in an old checkpoint it has no headers.
 *
 * @param carrier opaque bytes that the result returns unchanged (normally the record)
 * @param requestId stable across replays, so that the pool can deduplicate a repeated call
 * @param body the JSON request, or the UTF-8 text to embed; empty to pass through without a call
 * @param headers HTTP headers of the request, names in lower case; mutable
 */
public record CallRequest(
        byte[] carrier, String requestId, byte[] body, Map<String, String> headers) {

    public static final String REQUEST_ID = "x-request-id";
    public static final String TENANT = "x-sage-tenant";
    public static final String JOB = "x-sage-job";
    public static final String PRIORITY = "x-sage-priority";
    /** Milliseconds since the epoch. */
    public static final String DEADLINE = "x-sage-deadline-ms";

    private static final String FORM = "not an array of [carrier, request_id, body, headers]";
    private static final int FIELDS = 4;

    /**
     * The request in these bytes.
     *
     * @throws IllegalArgumentException when they are not a call request
     */
    public static CallRequest decode(byte[] data) {
        try {
            PackedReader reader = new PackedReader(data);
            int fields = reader.arrayHeader();
            if (fields != FIELDS && fields != FIELDS - 1) {
                throw new IllegalArgumentException(FORM);
            }
            byte[] carrier = WireRecord.upgrade(reader.bytes());
            String requestId = reader.string();
            byte[] body = reader.bytes();
            Map<String, String> headers =
                    fields == FIELDS ? headers(reader) : defaultHeaders(requestId);
            return new CallRequest(carrier, requestId, body, headers);
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException(FORM + ": " + e.getMessage(), e);
        }
    }

    public boolean isEmpty() {
        return body == null || body.length == 0;
    }

    /** Sets the deadline header unless the record has a deadline of its own. */
    public void setDefaultDeadline(long deadlineMs) {
        headers.putIfAbsent(DEADLINE, Long.toString(deadlineMs));
    }

    /** The time after which a result is useless; {@link Long#MAX_VALUE} without a deadline. */
    public long deadlineMs() {
        String header = headers.getOrDefault(DEADLINE, "");
        return header.matches("\\d{1,15}") ? Long.parseLong(header) : Long.MAX_VALUE;
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
