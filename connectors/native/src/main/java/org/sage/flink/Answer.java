package org.sage.flink;

/**
 * How a call ended.
 *
 * @param status the HTTP status, 0 when there is no usable answer (no connection, no time, an
 *     answer that breaks the protocol)
 * @param attempts requests sent for it
 * @param reason why it failed, in plain words; empty exactly when it succeeded
 * @param body the response, or the vector; empty when there is none
 */
record Answer(int status, int attempts, String reason, byte[] body) {

    static final byte[] NOTHING = new byte[0];

    static Answer ok(int status, int attempts, byte[] body) {
        return new Answer(status, attempts, "", body);
    }

    static Answer failed(int status, int attempts, String reason) {
        return new Answer(status, attempts, reason, NOTHING);
    }

    boolean isOk() {
        return reason.isEmpty();
    }
}
