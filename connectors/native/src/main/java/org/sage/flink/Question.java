package org.sage.flink;

import java.io.IOException;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

/**
 * What {@link PoolCall} is asked: the MessagePack array {@code [carrier bin, request_id str, body
 * bin]}.
 *
 * @param carrier what comes back untouched with the answer (the record, as a rule)
 * @param requestId the same after any replay, so that the pool can answer a repeated call once
 * @param body the JSON request, or the text to embed in UTF-8
 */
record Question(byte[] carrier, String requestId, byte[] body) {

    private static final int FIELDS = 3;

    /**
     * The question in these bytes.
     *
     * @throws IllegalArgumentException when they hold none
     */
    static Question decode(byte[] data) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data)) {
            if (unpacker.unpackArrayHeader() != FIELDS) {
                throw new IllegalArgumentException("not an array of [carrier, request_id, body]");
            }
            return new Question(
                    WireRecord.unpackBytes(unpacker),
                    unpacker.unpackString(),
                    WireRecord.unpackBytes(unpacker));
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException(
                    "not an array of [carrier, request_id, body]: " + e.getMessage(), e);
        }
    }
}
