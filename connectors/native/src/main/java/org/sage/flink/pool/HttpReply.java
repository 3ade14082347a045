package org.sage.flink.pool;

import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.util.Set;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.sage.flink.wire.CallResult;

/**
 * What one HTTP request came to.
 *
 * @param status 0 when there was no answer
 * @param reason empty exactly for a 2xx answer with its body
 * @param retryAfterMs what the Retry-After header asks for, 0 where it does not
 */
public record HttpReply(Classification verdict, int status, String reason, long retryAfterMs, byte[] body) {

    /** What an answer says about asking again, and about the guilt of what was asked. */
    public enum Classification {
        OK,
        /** No connection: nothing was asked. */
        AWAY,
        /** Load or start-up: the same request may be answered later or elsewhere. */
        BUSY,
        /** It may pass, or the content of the request does it: a text that crashes the engine. */
        DOUBTFUL,
        /** The content is refused: a part of it may be taken. */
        REFUSED,
        /** Asking again, or for less, changes nothing. */
        FINAL
    }

    private static final Set<Integer> BUSY = Set.of(408, 429, 503);
    private static final Set<Integer> DOUBTFUL = Set.of(500, 502, 504);
    private static final Set<Integer> REFUSED = Set.of(400, 413, 422);

    private static final int REASON_CHARS_MAX = 500;
    private static final ObjectMapper JSON = new ObjectMapper();

    public boolean isOk() {
        return verdict == Classification.OK;
    }

    public boolean mayPass() {
        return verdict == Classification.AWAY || verdict == Classification.BUSY || verdict == Classification.DOUBTFUL;
    }

    /** Whether a part of the request might be answered where the whole was not. */
    public boolean mayBeTheContent() {
        return verdict == Classification.REFUSED || verdict == Classification.DOUBTFUL;
    }

    /** Whether the address itself seems to be away: another one is asked first for a while. */
    public boolean isFromNowhere() {
        return status == 502 || status == 503 || status == 0;
    }

    /**
     * @param retryAfter the header, empty for none
     */
    public static HttpReply of(int status, String retryAfter, byte[] body) {
        boolean ok = status >= 200 && status < 300;
        return new HttpReply(
                verdict(status), status, ok ? "" : said(status, body), millis(retryAfter), body);
    }

    public static HttpReply noConnection(String url, Throwable why) {
        return none(Classification.AWAY, "no connection to " + url + detail(why));
    }

    public static HttpReply broken(String url, Throwable why) {
        String detail = why instanceof ClosedChannelException ? "" : detail(why);
        return none(Classification.DOUBTFUL, "the connection to " + url + " broke" + detail);
    }

    public static HttpReply tooLarge(int status, long bytesMax) {
        String reason = "the answer is larger than " + bytesMax + " bytes";
        return new HttpReply(Classification.REFUSED, status, reason, 0, CallResult.NO_BODY);
    }

    /** This answer of 2xx, which does not say what it should. */
    public HttpReply unusable(String why) {
        return new HttpReply(Classification.DOUBTFUL, status, cut(why), retryAfterMs, CallResult.NO_BODY);
    }

    /** The end of the call that this was the last reply to. */
    public CallResult answer(int attempts) {
        boolean says = isOk() || status >= 300;
        return new CallResult(says ? status : 0, attempts, reason, body);
    }

    /** The words of an {@code error} as OpenAI has it, or as a plain text; empty for none. */
    public static String words(JsonNode error) {
        JsonNode message = error.isTextual() ? error : error.path("message");
        return message.isTextual() && !message.asText().isBlank() ? cut(message.asText()) : "";
    }

    private static Classification verdict(int status) {
        if (status >= 200 && status < 300) {
            return Classification.OK;
        }
        if (BUSY.contains(status)) {
            return Classification.BUSY;
        }
        if (DOUBTFUL.contains(status)) {
            return Classification.DOUBTFUL;
        }
        return REFUSED.contains(status) ? Classification.REFUSED : Classification.FINAL;
    }

    private static HttpReply none(Classification verdict, String reason) {
        return new HttpReply(verdict, 0, cut(reason), 0, CallResult.NO_BODY);
    }

    private static String detail(Throwable why) {
        return why.getMessage() == null ? "" : ": " + why.getMessage();
    }

    /** The pool's own words, else {@code HTTP 503}. */
    private static String said(int status, byte[] body) {
        String words = "";
        try {
            words = words(JSON.readTree(body).path("error"));
        } catch (IOException e) {
            // Not JSON: a proxy's page, whose markup would tell the reader nothing.
        }
        return words.isEmpty() ? "HTTP " + status : words;
    }

    private static long millis(String retryAfter) {
        String seconds = retryAfter.strip();
        // The other form, a date, needs clocks that agree; back-off serves as well.
        boolean known = seconds.matches("\\d{1,6}(\\.\\d+)?");
        return known ? (long) (Double.parseDouble(seconds) * 1000) : 0;
    }

    private static String cut(String text) {
        return text.length() <= REASON_CHARS_MAX ? text : text.substring(0, REASON_CHARS_MAX);
    }
}
