package org.sage.flink;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;

/**
 * What {@link PoolCall} emits for each question: the MessagePack array {@code [carrier bin, status
 * int, attempts int, reason str, answer bin]}. The call succeeded exactly when the reason is empty.
 */
final class Envelope {

    private static final int FIELDS = 5;

    private Envelope() {}

    static byte[] encode(byte[] carrier, Answer answer) {
        int length = (carrier == null ? 0 : carrier.length) + answer.body().length;
        try (MessageBufferPacker packer =
                new MessagePack.PackerConfig().withBufferSize(length + 256).newBufferPacker()) {
            packer.packArrayHeader(FIELDS);
            WireRecord.packBytes(packer, carrier);
            packer.packInt(answer.status()).packInt(answer.attempts()).packString(answer.reason());
            WireRecord.packBytes(packer, answer.body());
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }
}
