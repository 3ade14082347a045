package org.sage.flink.wire;

/**
 * The outcome of a call, emitted for each {@link CallRequest}. Its wire form is the MessagePack
 * array {@code [carrier bin, status int, attempts int, reason str, body bin]}. The call succeeded
 * exactly when the reason is empty.
 *
 * @param status the HTTP status; 0 when there is no usable response (no connection, out of time, a
 *     response that breaks the protocol)
 * @param attempts HTTP requests sent for this call
 * @param reason why the call failed, in plain words; empty exactly when it succeeded
 * @param body the response body or the vector; empty when there is neither
 */
public record CallResult(int status, int attempts, String reason, byte[] body) {

    public static final byte[] NO_BODY = new byte[0];

    private static final int FIELDS = 5;

    public static CallResult ok(int status, int attempts, byte[] body) {
        return new CallResult(status, attempts, "", body);
    }

    public static CallResult failure(int status, int attempts, String reason) {
        return new CallResult(status, attempts, reason, NO_BODY);
    }

    public boolean isOk() {
        return reason.isEmpty();
    }

    /** A result, and the carrier of the request that it belongs to. */
    public record Carried(byte[] carrier, CallResult result) {}

    /**
     * What {@link #encode} wrote.
     *
     * @throws IllegalArgumentException when the bytes are something else
     */
    public static Carried decode(byte[] data) {
        PackedReader reader = new PackedReader(data);
        reader.arrayHeader();
        byte[] carrier = reader.bytes();
        int status = (int) reader.wholeNumber();
        int attempts = (int) reader.wholeNumber();
        return new Carried(
                carrier, new CallResult(status, attempts, reader.string(), reader.bytes()));
    }

    /** The wire form, with the carrier of the request that this is the result of. */
    public byte[] encode(byte[] carrier) {
        int length = (carrier == null ? 0 : carrier.length) + body.length;
        PackedWriter writer = new PackedWriter(length + 256);
        writer.arrayHeader(FIELDS);
        writer.bytes(carrier);
        writer.number(status);
        writer.number(attempts);
        writer.string(reason);
        return writer.bytes(body).toByteArray();
    }
}
