package org.sage.flink.wire;

import java.io.IOException;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ValueType;

/**
 * Reader of the fields of a wire record that operators need, without the rest of its value.
 *
 * <p>A field of the value is named by its path: {@code order.total} is the field {@code total} of
 * the map {@code order}; the empty path is the value itself. A field that is missing, nil, or below something other than a map is null.
 */
public final class RecordFields {

    private static final byte NIL = (byte) 0xc0;

    private final int count;
    private final Node root = new Node();

    /** Reader of these paths; {@link Found#fields} has one entry for each, in their order. */
    public RecordFields(List<String> paths) {
        count = paths.size();
        for (int i = 0; i < count; i++) {
            Node node = root;
            if (!paths.get(i).isEmpty()) {
                for (String name : paths.get(i).split("\\.", -1)) {
                    node = node.children.computeIfAbsent(name, key -> new Node());
                }
            }
            node.indexes = Arrays.copyOf(node.indexes, node.indexes.length + 1);
            node.indexes[node.indexes.length - 1] = i;
        }
    }

    /**
     * What a record holds.
     *
     * @param fields the MessagePack of each path's value, or null
     */
    public record Found(
            String id,
            byte[][] fields,
            long timestampMs,
            byte[] key,
            String origin,
            boolean isDelete,
            int timestampFrom,
            int timestampTo,
            int keyTo) {}

    /**
     * The fields of the record in {@code data}.
     *
     * @throws IllegalArgumentException when the bytes are not a wire record
     */
    public Found read(byte[] data) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data)) {
            unpacker.unpackArrayHeader();
            String id = unpacker.unpackString();
            byte[][] fields = new byte[count][];
            read(unpacker, data, root, fields);
            int timestampFrom = position(unpacker);
            long timestampMs = unpacker.unpackLong();
            int timestampTo = position(unpacker);
            byte[] key = WireRecord.unpackBytes(unpacker);
            int keyTo = position(unpacker);
            unpacker.skipValue();
            String origin = unpacker.unpackString();
            boolean isDelete = unpacker.unpackString().equals("delete");
            return new Found(
                    id, fields, timestampMs, key, origin, isDelete, timestampFrom, timestampTo, keyTo);
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("not a wire record: " + e.getMessage(), e);
        }
    }

    private static void read(MessageUnpacker unpacker, byte[] data, Node node, byte[][] found)
            throws IOException {
        int from = position(unpacker);
        boolean descends =
                !node.children.isEmpty()
                        && unpacker.getNextFormat().getValueType() == ValueType.MAP;
        if (descends) {
            int size = unpacker.unpackMapHeader();
            for (int i = 0; i < size; i++) {
                Node child = child(unpacker, node);
                if (child == null) {
                    unpacker.skipValue();
                } else {
                    read(unpacker, data, child, found);
                }
            }
        } else {
            unpacker.skipValue();
        }
        for (int index : node.indexes) {
            boolean isNull = data[from] == NIL;
            found[index] = isNull ? null : Arrays.copyOfRange(data, from, position(unpacker));
        }
    }

    private static Node child(MessageUnpacker unpacker, Node node) throws IOException {
        if (unpacker.getNextFormat().getValueType() == ValueType.STRING) {
            return node.children.get(unpacker.unpackString());
        }
        unpacker.skipValue();
        return null;
    }

    private static int position(MessageUnpacker unpacker) {
        return (int) unpacker.getTotalReadBytes();
    }

    private static final class Node {
        private final Map<String, Node> children = new HashMap<>();
        private int[] indexes = {};
    }
}
