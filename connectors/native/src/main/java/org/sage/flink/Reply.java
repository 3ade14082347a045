package org.sage.flink;

import java.io.IOException;
import java.net.ConnectException;
import java.net.http.HttpResponse;
import java.util.Optional;
import java.util.Set;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * What one HTTP request came to.
 *
 * @param status 0 when there was no answer
 * @param reason empty exactly for a 2xx answer with its body
 * @param retryAfterMs what the Retry-After header asks for, 0 where it does not
 */
record Reply(int status, String reason, long retryAfterMs, byte[] body) {

    /** Load, start-up or a broken way: the same request may be answered later or elsewhere. */
    private static final Set<Integer> PASSING = Set.of(0, 408, 429, 500, 502, 503, 504);

    private static final int REASON_CHARS_MAX = 500;
    private static final ObjectMapper JSON = new ObjectMapper();

    boolean isOk() {
        return reason.isEmpty();
    }

    boolean mayPass() {
        return !isOk() && PASSING.contains(status);
    }

    static Reply of(HttpResponse<Optional<byte[]>> response, long bytesMax) {
        int status = response.statusCode();
        if (response.body().isEmpty()) {
            String reason = "the answer is larger than " + bytesMax + " bytes";
            return new Reply(status, reason, 0, Answer.NOTHING);
        }
        byte[] body = response.body().get();
        boolean ok = status >= 200 && status < 300;
        return new Reply(status, ok ? "" : reason(status, body), retryAfterMs(response), body);
    }

    static Reply noAnswer(String url, Throwable error) {
        String what =
                error instanceof ConnectException
                        ? "no connection to " + url
                        : "the connection to " + url + " broke";
        String detail = error.getMessage() == null ? "" : ": " + error.getMessage();
        return new Reply(0, cut(what + detail), 0, Answer.NOTHING);
    }

    /** The pool's own words ({@code error.message}, as OpenAI has it), else {@code HTTP 503}. */
    private static String reason(int status, byte[] body) {
        try {
            JsonNode message = JSON.readTree(body).path("error").path("message");
            if (message.isTextual() && !message.asText().isBlank()) {
                return cut(message.asText());
            }
        } catch (IOException e) {
            // Not JSON: a proxy's page, whose markup would tell the reader nothing.
        }
        return "HTTP " + status;
    }

    private static long retryAfterMs(HttpResponse<?> response) {
        String seconds = response.headers().firstValue("Retry-After").orElse("").strip();
        // The other form, a date, needs clocks that agree; back-off serves as well.
        return seconds.matches("\\d{1,6}(\\.\\d+)?") ? (long) (Double.parseDouble(seconds) * 1000) : 0;
    }

    private static String cut(String text) {
        return text.length() <= REASON_CHARS_MAX ? text : text.substring(0, REASON_CHARS_MAX);
    }
}
