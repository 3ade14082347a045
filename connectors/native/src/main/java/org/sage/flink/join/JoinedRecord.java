package org.sage.flink.join;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordLimit;

/**
 * The result of two records, one of which may be missing.
 *
 * @param content the wire record {@code {"left": <value>, "right": <value>}}
 * @param timestampMs the later time of both
 */
record JoinedRecord(byte[] content, long timestampMs) {

    /** A longer id is a hash. */
    private static final int ID_BYTES_MAX = 200;

    private static final String BETWEEN = "~";
    private static final int RECORD_FIELDS = 9;
    private static final int BYTES_BESIDE_VALUES = 512;

    /** The result of {@code left} and {@code right}, one of which may be null. */
    static JoinedRecord of(String step, JoinSide left, JoinSide right) {
        JoinSide first = left == null ? right : left;
        Map<String, byte[]> headers = new LinkedHashMap<>(first.headers());
        long timestampMs = first.timestampMs();
        if (left != null && right != null) {
            right.headers().forEach(headers::putIfAbsent);
            timestampMs = Math.max(timestampMs, right.timestampMs());
        }
        JoinSide result =
                new JoinSide(
                        id(step, idOf(left), idOf(right)),
                        null,
                        timestampMs,
                        first.key(),
                        headers,
                        first.origin().isEmpty() ? first.id() : first.origin());
        return of(result, valueOf(left), valueOf(right));
    }

    /** The record {@code left} with the value of the other input, which may be null. */
    static JoinedRecord ofLeft(JoinSide left, byte[] right) {
        return of(left, left.value(), right);
    }

    private static JoinedRecord of(JoinSide result, byte[] left, byte[] right) {
        int size = (left == null ? 0 : left.length) + (right == null ? 0 : right.length);
        try (MessageBufferPacker packer =
                new MessagePack.PackerConfig()
                        .withBufferSize(size + BYTES_BESIDE_VALUES)
                        .newBufferPacker()) {
            packer.packArrayHeader(RECORD_FIELDS);
            packer.packString(result.id()).packMapHeader(2);
            packValue(packer, "left", left);
            packValue(packer, "right", right);
            packer.packLong(result.timestampMs());
            packer.packBinaryHeader(result.key().length).writePayload(result.key());
            packer.packMapHeader(result.headers().size());
            for (Map.Entry<String, byte[]> header : result.headers().entrySet()) {
                packer.packString(header.getKey());
                packer.packBinaryHeader(header.getValue().length).writePayload(header.getValue());
            }
            packer.packString(result.origin());
            packer.packString("upsert").packString("").packString("");
            return new JoinedRecord(packer.toByteArray(), result.timestampMs());
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    /** Sends the record, or its dead letter where it is too large for a record. */
    void emit(Output<StreamRecord<byte[]>> output, FailedRecords failed) {
        try {
            RecordLimit.check(content.length);
        } catch (IllegalArgumentException e) {
            failed.refuseMade(output, content, e.getMessage());
            return;
        }
        output.collect(new StreamRecord<>(content, timestampMs));
    }

    /**
     * {@code step/left id~right id}; a hash of both where it would be too long or ambiguous.
     */
    static String id(String step, String left, String right) {
        String readable =
                step + "/" + (left == null ? "" : left) + BETWEEN + (right == null ? "" : right);
        boolean isClear = isClear(left) && isClear(right);
        return isClear && utf8(readable).length <= ID_BYTES_MAX
                ? readable
                : step + "/sha256:" + hash(left, right);
    }

    private static boolean isClear(String id) {
        return id == null || !(id.isEmpty() || id.contains(BETWEEN));
    }

    private static String hash(String left, String right) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            update(digest, left);
            update(digest, right);
            return HexFormat.of().formatHex(digest.digest());
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }

    /** Adds the id behind its length, so that two of them stay distinct. */
    private static void update(MessageDigest digest, String id) {
        if (id == null) {
            digest.update(utf8("-"));
        } else {
            byte[] content = utf8(id);
            digest.update(utf8(content.length + ":"));
            digest.update(content);
        }
    }

    private static void packValue(MessageBufferPacker packer, String name, byte[] value)
            throws IOException {
        packer.packString(name);
        if (value == null) {
            packer.packNil();
        } else {
            packer.writePayload(value);
        }
    }

    private static byte[] valueOf(JoinSide side) {
        return side == null ? null : side.value();
    }

    private static String idOf(JoinSide side) {
        return side == null ? null : side.id();
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
