package org.sage.flink.wire;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.msgpack.core.MessageFormat;
import org.msgpack.value.ValueType;

/**
 * Reader of the fields of a wire record that operators need, without the rest of its value.
 *
 * <p>A field of the value is named by its path: {@code order.total} is the field {@code total} of
 * the map {@code order}; the empty path is the value itself. A field that is missing, nil, or below
 * something other than a map is null.
 */
public final class RecordFields {

    private static final byte NIL = (byte) 0xc0;
    private static final byte[] DELETE = "delete".getBytes(StandardCharsets.UTF_8);

    private final int count;
    private final Node root = new Node();

    /** Reader of these paths; {@link Found#fields} has one entry for each, in their order. */
    public RecordFields(List<String> paths) {
        count = paths.size();
        for (int i = 0; i < count; i++) {
            Node node = root;
            if (!paths.get(i).isEmpty()) {
                for (String name : paths.get(i).split("\\.", -1)) {
                    node = node.child(name);
                }
            }
            node.indexes = Arrays.copyOf(node.indexes, node.indexes.length + 1);
            node.indexes[node.indexes.length - 1] = i;
        }
    }

    /** What a record holds. */
    public static final class Found {
        private final byte[] data;
        private final byte[][] fields;
        private final long timestampMs;
        private final byte[] key;
        private final boolean isDelete;
        private final int valueFrom;
        private final int timestampFrom;
        private final int timestampTo;
        private final int keyTo;
        private final int originFrom;
        private final int kindFrom;

        private Found(
                byte[] data,
                byte[][] fields,
                long timestampMs,
                byte[] key,
                boolean isDelete,
                int valueFrom,
                int timestampFrom,
                int timestampTo,
                int keyTo,
                int originFrom,
                int kindFrom) {
            this.data = data;
            this.fields = fields;
            this.timestampMs = timestampMs;
            this.key = key;
            this.isDelete = isDelete;
            this.valueFrom = valueFrom;
            this.timestampFrom = timestampFrom;
            this.timestampTo = timestampTo;
            this.keyTo = keyTo;
            this.originFrom = originFrom;
            this.kindFrom = kindFrom;
        }

        public String id() {
            PackedReader reader = new PackedReader(data);
            reader.arrayHeader();
            return reader.string();
        }

        /** Where the MessagePack of the value begins in the record. */
        public int valueFrom() {
            return valueFrom;
        }

        /** Where it ends. */
        public int valueTo() {
            return timestampFrom;
        }

        public ValueType valueType() {
            return MessageFormat.valueOf(data[valueFrom]).getValueType();
        }

        /** The value, which is bytes, text or nil; null for nil. */
        public byte[] valueBytes() {
            PackedReader reader = new PackedReader(data);
            reader.advance(valueFrom);
            return reader.bytes();
        }

        /** The MessagePack of each path's value, or null. */
        public byte[][] fields() {
            return fields;
        }

        public long timestampMs() {
            return timestampMs;
        }

        /** Null when the record has no key. */
        public byte[] key() {
            return key;
        }

        /** The headers of the record. */
        public Map<String, byte[]> headers() {
            PackedReader reader = new PackedReader(data);
            reader.advance(keyTo);
            Map<String, byte[]> headers = new HashMap<>();
            for (int left = reader.mapHeader(); left > 0; left--) {
                headers.put(reader.string(), reader.bytes());
            }
            return headers;
        }

        /** The document whose rows a delete removes, and the version of it whose rows stay. */
        public String[] documentAndVersion() {
            PackedReader reader = new PackedReader(data);
            reader.advance(kindFrom);
            reader.skip();
            return new String[] {reader.string(), reader.string()};
        }

        public String origin() {
            PackedReader reader = new PackedReader(data);
            reader.advance(originFrom);
            return reader.string();
        }

        public boolean isDelete() {
            return isDelete;
        }

        int timestampFrom() {
            return timestampFrom;
        }

        int timestampTo() {
            return timestampTo;
        }

        int keyTo() {
            return keyTo;
        }

        int kindFrom() {
            return kindFrom;
        }
    }

    /**
     * The fields of the record in {@code data}.
     *
     * @throws IllegalArgumentException when the bytes are not a wire record
     */
    public Found read(byte[] data) {
        try {
            PackedReader reader = new PackedReader(data);
            reader.arrayHeader();
            reader.advance(reader.stringHeader());
            byte[][] fields = new byte[count][];
            int valueFrom = reader.position();
            read(reader, data, root, fields);
            int timestampFrom = reader.position();
            long timestampMs = reader.wholeNumber();
            int timestampTo = reader.position();
            byte[] key = reader.bytes();
            int keyTo = reader.position();
            reader.skip();
            int originFrom = reader.position();
            reader.skip();
            int kindFrom = reader.position();
            boolean isDelete = isDelete(reader, data);
            return new Found(
                    data, fields, timestampMs, key, isDelete, valueFrom, timestampFrom,
                    timestampTo, keyTo, originFrom, kindFrom);
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a wire record: " + e.getMessage(), e);
        }
    }

    private static boolean isDelete(PackedReader reader, byte[] data) {
        int length = reader.stringHeader();
        int from = reader.position();
        return Arrays.equals(data, from, from + length, DELETE, 0, DELETE.length);
    }

    private static void read(PackedReader reader, byte[] data, Node node, byte[][] found) {
        int from = reader.position();
        if (node.names.length > 0 && reader.type() == ValueType.MAP) {
            int size = reader.mapHeader();
            for (int i = 0; i < size; i++) {
                Node child = child(reader, data, node);
                if (child == null) {
                    reader.skip();
                } else {
                    read(reader, data, child, found);
                }
            }
        } else {
            reader.skip();
        }
        for (int index : node.indexes) {
            boolean isNull = data[from] == NIL;
            found[index] = isNull ? null : Arrays.copyOfRange(data, from, reader.position());
        }
    }

    /** The node of the key that the reader moves behind; null where it is on no path. */
    private static Node child(PackedReader reader, byte[] data, Node node) {
        if (reader.type() != ValueType.STRING) {
            reader.skip();
            return null;
        }
        int length = reader.stringHeader();
        int from = reader.position();
        reader.advance(length);
        for (int i = 0; i < node.names.length; i++) {
            byte[] name = node.names[i];
            if (Arrays.equals(data, from, from + length, name, 0, name.length)) {
                return node.children[i];
            }
        }
        return null;
    }

    /** A field on a path: its index in the fields that are read, and the fields below it. */
    private static final class Node {
        private byte[][] names = {};
        private Node[] children = {};
        private int[] indexes = {};

        private Node child(String field) {
            byte[] name = field.getBytes(StandardCharsets.UTF_8);
            for (int i = 0; i < names.length; i++) {
                if (Arrays.equals(names[i], name)) {
                    return children[i];
                }
            }
            names = Arrays.copyOf(names, names.length + 1);
            children = Arrays.copyOf(children, children.length + 1);
            names[names.length - 1] = name;
            children[children.length - 1] = new Node();
            return children[children.length - 1];
        }
    }
}
