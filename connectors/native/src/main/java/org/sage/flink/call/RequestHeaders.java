package org.sage.flink.call;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.zip.CRC32;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.RecordFields;

/** The HTTP headers of a call; the Python twin is {@code call_headers} and says what each means. */
final class RequestHeaders {

    private static final long TIME_MAX_MS = 999_999_999_999_999L;
    private static final int HEADER_MAX = 200;
    private static final int KEY_GROUPS = 128;

    private final RequestConfig config;
    private final String label;

    RequestHeaders(RequestConfig config) {
        this.config = config;
        label = config.label();
    }

    /** Those that are not empty, of the request {@code id}. */
    Map<String, String> of(RecordFields.Found found, String id) {
        Map<String, byte[]> own = found.headers();
        String tenant = text(own.get("sage-tenant"));
        String priority = text(own.get("sage-priority"));
        String deadline = text(own.get("sage-deadline-ms"));
        String trace = text(own.get("traceparent"));
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put(CallRequest.REQUEST_ID, id);
        headers.put("idempotency-key", id);
        headers.put(CallRequest.TENANT, tenant.isEmpty() ? config.tenant() : tenant);
        headers.put(CallRequest.JOB, label);
        headers.put(
                CallRequest.PRIORITY,
                config.priorities().contains(priority) ? priority : config.priority());
        headers.put(CallRequest.DEADLINE, deadline.matches("[0-9]{1,15}") ? deadline : "");
        headers.put(CallRequest.SOFT_DEADLINE, softDeadline(found.timestampMs()));
        headers.put(
                "traceparent",
                trace.isEmpty() ? "00-" + id + "-" + id.substring(0, 16) + "-00" : trace);
        headers.put("x-session-id", text(own.get("sage-session")));
        headers.put(CallRequest.CACHE, config.cacheTtlS() == 0 ? "" : "ttl=" + config.cacheTtlS());
        headers.put("x-key-group", keyGroup(found.key()));
        headers.values().removeIf(String::isEmpty);
        return headers;
    }

    private String softDeadline(long timestampMs) {
        if (config.freshnessMs() == null || timestampMs == 0) {
            return "";
        }
        long bounded = Math.min(timestampMs, TIME_MAX_MS);
        long deadlineMs = Math.max(0, bounded + config.freshnessMs());
        return String.valueOf(Math.min(deadlineMs, TIME_MAX_MS));
    }

    private static String keyGroup(byte[] key) {
        if (key == null) {
            return "";
        }
        CRC32 crc = new CRC32();
        crc.update(key);
        return String.valueOf(crc.getValue() % KEY_GROUPS);
    }

    /** One line of ASCII; empty where it is something else. */
    private static String text(byte[] value) {
        int length = value == null ? 0 : Math.min(HEADER_MAX, value.length);
        for (int i = 0; i < length; i++) {
            if (value[i] < ' ' || value[i] > '~') {
                return "";
            }
        }
        return length == 0 ? "" : new String(value, 0, length, StandardCharsets.US_ASCII);
    }
}
