package org.sage.flink.pool;

import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.util.Set;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.sage.flink.wire.CallResult;

/**
 * The outcome of one HTTP request.
 *
 * @param status 0 without a response
 * @param reason empty exactly for a 2xx response with its body
 * @param retryAfterMs from the Retry-After header, 0 without one
 */
public record HttpReply(
        Classification classification,
        int status,
        String reason,
        long retryAfterMs,
        byte[] body) {

    /** Whether a retry can help, and whether the content of the request can be the cause. */
    public enum Classification {
        OK,
        /** No connection: the request did not reach an engine. */
        UNREACHABLE,
        /** Overload or start-up: the same request may succeed later or at another endpoint. */
        BUSY,
        /** Either temporary, or caused by the content: a text that crashes the engine. */
        AMBIGUOUS,
        /** The content is rejected; a part of it may be accepted. */
        REJECTED,
        /** Neither a retry nor a smaller request can succeed. */
        FINAL
    }

    private static final Set<Integer> BUSY = Set.of(408, 429, 503);
    private static final Set<Integer> AMBIGUOUS = Set.of(500, 502, 504);
    private static final Set<Integer> REJECTED = Set.of(400, 413, 422);

    private static final int REASON_CHARS_MAX = 500;
    private static final ObjectMapper JSON = new ObjectMapper();

    boolean isOk() {
        return classification == Classification.OK;
    }

    public boolean isRetryable() {
        return classification == Classification.UNREACHABLE
                || classification == Classification.BUSY
                || classification == Classification.AMBIGUOUS;
    }

    /** Whether a part of the request might succeed where the whole request failed. */
    public boolean mayBeContentError() {
        return classification == Classification.REJECTED
                || classification == Classification.AMBIGUOUS;
    }

    /** Whether the endpoint itself seems to be down, so that others are preferred for a while. */
    boolean isEndpointFailure() {
        return status == 502 || status == 503 || status == 0;
    }

    /**
     * @param retryAfter the header's value, empty without one
     */
    static HttpReply of(int status, String retryAfter, byte[] body) {
        boolean ok = status >= 200 && status < 300;
        return new HttpReply(
                classify(status), status, ok ? "" : reason(status, body), millis(retryAfter), body);
    }

    static HttpReply unreachable(String url, Throwable cause) {
        return failure(Classification.UNREACHABLE, "no connection to " + url + detail(cause));
    }

    static HttpReply connectionLost(String url, Throwable cause) {
        String detail = cause instanceof ClosedChannelException ? "" : detail(cause);
        return failure(Classification.AMBIGUOUS, "the connection to " + url + " broke" + detail);
    }

    static HttpReply tooLarge(int status, long bytesMax) {
        String reason = "the answer is larger than " + bytesMax + " bytes";
        return new HttpReply(Classification.REJECTED, status, reason, 0, CallResult.NO_BODY);
    }

    /** This 2xx reply as a failure, because its body cannot be used. */
    HttpReply unusable(String why) {
        return new HttpReply(
                Classification.AMBIGUOUS, status, cut(why), retryAfterMs, CallResult.NO_BODY);
    }

    /** The result of the call whose last reply this is. */
    CallResult result(int attempts) {
        boolean meaningful = isOk() || status >= 300;
        return new CallResult(meaningful ? status : 0, attempts, reason, body);
    }

    /** The message of an OpenAI {@code error} object or of a plain string; empty without one. */
    static String errorMessage(JsonNode error) {
        JsonNode message = error.isTextual() ? error : error.path("message");
        return message.isTextual() && !message.asText().isBlank() ? cut(message.asText()) : "";
    }

    private static Classification classify(int status) {
        if (status >= 200 && status < 300) {
            return Classification.OK;
        }
        if (BUSY.contains(status)) {
            return Classification.BUSY;
        }
        if (AMBIGUOUS.contains(status)) {
            return Classification.AMBIGUOUS;
        }
        return REJECTED.contains(status) ? Classification.REJECTED : Classification.FINAL;
    }

    private static HttpReply failure(Classification classification, String reason) {
        return new HttpReply(classification, 0, cut(reason), 0, CallResult.NO_BODY);
    }

    private static String detail(Throwable cause) {
        return cause.getMessage() == null ? "" : ": " + cause.getMessage();
    }

    /** The pool's own error message, else {@code HTTP 503}. */
    private static String reason(int status, byte[] body) {
        String message = "";
        try {
            message = errorMessage(JSON.readTree(body).path("error"));
        } catch (IOException e) {
            // Not JSON: the HTML page of a proxy, useless as a reason.
        }
        return message.isEmpty() ? "HTTP " + status : message;
    }

    private static long millis(String retryAfter) {
        String seconds = retryAfter.strip();
        // The header's other form, a date, needs synchronised clocks; back-off is good enough.
        boolean isNumber = seconds.matches("\\d{1,6}(\\.\\d+)?");
        return isNumber ? (long) (Double.parseDouble(seconds) * 1000) : 0;
    }

    private static String cut(String text) {
        return text.length() <= REASON_CHARS_MAX ? text : text.substring(0, REASON_CHARS_MAX);
    }
}
