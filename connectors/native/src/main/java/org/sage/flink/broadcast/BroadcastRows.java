package org.sage.flink.broadcast;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import java.util.TreeMap;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.sage.flink.keyed.Keys;

/**
 * The rows of one version: the initial ones with all changes so far. A row that hides a deleted
 * initial one has no bytes.
 */
final class BroadcastRows {

    /** The row of a delete: no MessagePack value has no bytes. */
    static final byte[] DELETED = {};

    private final Map<String, byte[]> initial;
    private final Map<String, byte[]> changed = new TreeMap<>();

    private long version;
    private TreeMap<String, byte[]> rows;
    private byte[] packed;

    BroadcastRows(Map<String, byte[]> initial) {
        this.initial = initial;
    }

    /** The changed rows, by Flink's text of their key. */
    Map<String, byte[]> changed() {
        return changed;
    }

    long version() {
        return version;
    }

    /** Makes these changes, which are the version of this number. */
    void change(long number, Map<String, byte[]> changes) {
        changed.putAll(changes);
        changed.entrySet()
                .removeIf(row -> row.getValue().length == 0 && !initial.containsKey(row.getKey()));
        version = number;
        rows = null;
        packed = null;
    }

    /** The MessagePack of {@code {"version": number, "rows": {key: row}}}, in the order of keys. */
    byte[] all() {
        if (packed == null) {
            try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
                packer.packMapHeader(2).packString("version").packLong(version);
                packer.packString("rows").packMapHeader(rows().size());
                for (Map.Entry<String, byte[]> row : rows().entrySet()) {
                    byte[] key = Keys.bytes(row.getKey());
                    packer.packRawStringHeader(key.length).writePayload(key);
                    packer.writePayload(row.getValue());
                }
                packed = packer.toByteArray();
            } catch (IOException e) {
                throw new UncheckedIOException(e); // a packer over memory does no input or output
            }
        }
        return packed;
    }

    /** The MessagePack of {@code {"version": number, "row": row}}, the row nil without one. */
    byte[] one(String key) {
        byte[] row = rows().get(key);
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packMapHeader(2).packString("version").packLong(version).packString("row");
            if (row == null) {
                packer.packNil();
            } else {
                packer.writePayload(row);
            }
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    private TreeMap<String, byte[]> rows() {
        if (rows == null) {
            rows = new TreeMap<>(initial);
            rows.putAll(changed);
            rows.values().removeIf(row -> row.length == 0);
        }
        return rows;
    }
}
