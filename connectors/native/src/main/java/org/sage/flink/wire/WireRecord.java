package org.sage.flink.wire;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ImmutableArrayValue;
import org.msgpack.value.Value;
import org.msgpack.value.ValueFactory;
import org.msgpack.value.ValueType;

/**
 * A record with bytes or null as its value. Its wire form is the MessagePack array of nine {@code
 * [id str, value, timestamp_ms int, key bin|nil, headers map str->bin, origin str, kind str,
 * document str, version str]} that the Python side reads as {@code Record}.
 *
 * @param value the raw value, null for a Kafka tombstone
 * @param timestampMs event time, milliseconds since the epoch, 0 when unknown
 * @param key null when the record has no key
 * @param kind {@code upsert} or {@code delete}
 * @param document the document whose rows a delete removes; empty for an upsert
 * @param version the version of it whose rows stay; empty when all rows are removed
 */
public record WireRecord(
        String id,
        byte[] value,
        long timestampMs,
        byte[] key,
        Map<String, byte[]> headers,
        String origin,
        String kind,
        String document,
        String version) {

    private static final int FIELDS = 9;

    /** The wire form before records had a kind: without the last three fields. */
    private static final int FIELDS_BEFORE_KIND = 6;

    private static final String UPSERT = "upsert";
    private static final String DELETE = "delete";

    private static final List<String> OLD_DELETE_FIELDS = List.of("doc", "keep");

    /** An upsert. */
    public WireRecord(
            String id,
            byte[] value,
            long timestampMs,
            byte[] key,
            Map<String, byte[]> headers,
            String origin) {
        this(id, value, timestampMs, key, headers, origin, UPSERT, "", "");
    }

    public boolean isDelete() {
        return kind.equals(DELETE);
    }

    /** This record with one more header. */
    public WireRecord withHeader(String name, byte[] content) {
        Map<String, byte[]> all = new LinkedHashMap<>(headers);
        all.put(name, content);
        return new WireRecord(id, value, timestampMs, key, all, origin, kind, document, version);
    }

    /** The wire form of this record. */
    public byte[] encode() {
        PackedWriter writer = new PackedWriter((value == null ? 0 : value.length) + 256);
        writer.arrayHeader(FIELDS);
        writer.string(id);
        writer.bytes(value);
        writer.number(timestampMs);
        writer.bytes(key);
        writer.mapHeader(headers.size());
        for (Map.Entry<String, byte[]> header : headers.entrySet()) {
            writer.string(header.getKey());
            writer.bytes(header.getValue());
        }
        writer.string(origin).string(kind).string(document).string(version);
        return writer.toByteArray();
    }

    /**
     * The record that {@link #encode} or the Python side wrote. A text value becomes its UTF-8
     * bytes.
     *
     * @throws IllegalArgumentException when the bytes are not a wire record, or the value is not
     *     bytes, text or nil
     */
    public static WireRecord decode(byte[] data) {
        try {
            PackedReader reader = new PackedReader(data);
            int fields = reader.arrayHeader();
            if (fields != FIELDS) {
                throw new IllegalArgumentException(
                        "a wire record is an array of " + FIELDS + " fields, got " + fields);
            }
            String id = reader.string();
            requireRaw(id, reader.type());
            return new WireRecord(
                    id,
                    reader.bytes(),
                    reader.wholeNumber(),
                    reader.bytes(),
                    headers(reader),
                    reader.string(),
                    reader.string(),
                    reader.string(),
                    reader.string());
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a wire record: " + e.getMessage(), e);
        }
    }

    private static void requireRaw(String id, ValueType type) {
        if (type != ValueType.NIL && type != ValueType.BINARY && type != ValueType.STRING) {
            throw new IllegalArgumentException(
                    "record '"
                            + id
                            + "': the value must be bytes, text or nil here, got "
                            + type.name().toLowerCase()
                            + "; encode it in a step before");
        }
    }

    /** The map of headers, text to bytes, that is the reader's next value. */
    public static Map<String, byte[]> headers(PackedReader reader) {
        int size = reader.mapHeader();
        Map<String, byte[]> headers = new LinkedHashMap<>();
        for (int i = 0; i < size; i++) {
            headers.put(reader.string(), reader.bytes());
        }
        return headers;
    }

    /**
     * The record in today's wire form, for records in the state of an older job: there a delete was
     * an upsert with the value {@code {"$delete": {"doc": document, "keep": version}}}. Other bytes
     * are returned unchanged.
     */
    public static byte[] upgrade(byte[] data) {
        if (data == null || data.length == 0 || data[0] != (byte) (0x90 | FIELDS_BEFORE_KIND)) {
            return data;
        }
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data);
                MessageBufferPacker packer =
                        new MessagePack.PackerConfig()
                                .withBufferSize(data.length + 256)
                                .newBufferPacker()) {
            ImmutableArrayValue old = unpacker.unpackValue().asArrayValue();
            Map<Value, Value> delete = oldDelete(old.get(1));
            packer.packArrayHeader(FIELDS);
            for (int i = 0; i < FIELDS_BEFORE_KIND; i++) {
                packer.packValue(i == 1 && delete != null ? ValueFactory.newNil() : old.get(i));
            }
            packer.packString(delete == null ? UPSERT : DELETE);
            for (String field : OLD_DELETE_FIELDS) {
                packer.packString(
                        delete == null ? "" : delete.get(ValueFactory.newString(field)).toString());
            }
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    /** The fields of an old delete; null when the value is of an upsert. */
    private static Map<Value, Value> oldDelete(Value value) {
        Value fields =
                value.isMapValue() && value.asMapValue().size() == 1
                        ? value.asMapValue().map().get(ValueFactory.newString("$delete"))
                        : null;
        boolean named = fields != null && fields.isMapValue() && fields.asMapValue().size() == 2;
        if (!named) {
            return null;
        }
        Map<Value, Value> found = fields.asMapValue().map();
        for (String field : OLD_DELETE_FIELDS) {
            Value text = found.get(ValueFactory.newString(field));
            if (text == null || !text.isStringValue()) {
                return null;
            }
        }
        return found.get(ValueFactory.newString("doc")).toString().isEmpty() ? null : found;
    }
}
