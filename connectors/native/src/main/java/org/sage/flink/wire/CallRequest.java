package org.sage.flink.wire;

import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.Map;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

/**
 * What {@link PoolAsyncFunction} is asked: the MessagePack array {@code [carrier bin, request_id str, body
 * bin, headers map str->str]}; one of an old checkpoint has no headers.
 *
 * @param carrier what comes back untouched with the answer (the record, as a rule)
 * @param requestId the same after any replay, so that the pool can answer a repeated call once
 * @param body the JSON request, or the text to embed in UTF-8; empty when there is nothing to ask
 * @param headers what the pool is told besides, names in lower case
 */
public record CallRequest(byte[] carrier, String requestId, byte[] body, Map<String, String> headers) {

    public static final String REQUEST_ID = "x-request-id";
    public static final String TENANT = "x-sage-tenant";
    public static final String JOB = "x-sage-job";
    public static final String PRIORITY = "x-sage-priority";
    /** Milliseconds since the epoch. */
    public static final String DEADLINE = "x-sage-deadline-ms";

    private static final String FORM = "not an array of [carrier, request_id, body, headers]";
    private static final int FIELDS = 4;

    /**
     * The question in these bytes.
     *
     * @throws IllegalArgumentException when they hold none
     */
    public static CallRequest decode(byte[] data) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data)) {
            int fields = unpacker.unpackArrayHeader();
            if (fields != FIELDS && fields != FIELDS - 1) {
                throw new IllegalArgumentException(FORM);
            }
            byte[] carrier = WireRecord.upgrade(WireRecord.unpackBytes(unpacker));
            String requestId = unpacker.unpackString();
            byte[] body = WireRecord.unpackBytes(unpacker);
            Map<String, String> headers =
                    fields == FIELDS ? headers(unpacker) : identified(requestId);
            return new CallRequest(carrier, requestId, body, headers);
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException(FORM + ": " + e.getMessage(), e);
        }
    }

    public boolean asksNothing() {
        return body == null || body.length == 0;
    }

    /** The record's own deadline, or else this one, is told to the pool. */
    public CallRequest dueAt(long deadlineMs) {
        headers.putIfAbsent(DEADLINE, Long.toString(deadlineMs));
        return this;
    }

    /** When the pool's answer is of no use any more; the end of time where nothing is said. */
    public long deadlineMs() {
        String told = headers.getOrDefault(DEADLINE, "");
        return told.matches("\\d{1,15}") ? Long.parseLong(told) : Long.MAX_VALUE;
    }

    private static Map<String, String> headers(MessageUnpacker unpacker) throws IOException {
        int size = unpacker.unpackMapHeader();
        Map<String, String> headers = new LinkedHashMap<>();
        for (int i = 0; i < size; i++) {
            headers.put(unpacker.unpackString(), unpacker.unpackString());
        }
        return headers;
    }

    private static Map<String, String> identified(String requestId) {
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put(REQUEST_ID, requestId);
        headers.put("idempotency-key", requestId);
        return headers;
    }
}
