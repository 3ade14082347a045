package org.sage.flink.broadcast;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.PackedWriter;

/**
 * The rows of one version: the initial ones with all changes so far. A row that hides a deleted
 * initial one has no bytes.
 */
final class BroadcastRows {

    /** The row of a delete: no MessagePack value has no bytes. */
    static final byte[] DELETED = {};

    private static final int BYTES_BESIDE_ROWS = 32;

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
            PackedWriter writer = begin("rows");
            writer.mapHeader(rows().size());
            for (Map.Entry<String, byte[]> row : rows().entrySet()) {
                writer.string(new String(Keys.bytes(row.getKey()), StandardCharsets.UTF_8));
                writer.raw(row.getValue(), 0, row.getValue().length);
            }
            packed = writer.toByteArray();
        }
        return packed;
    }

    /** The MessagePack of {@code {"version": number, "row": row}}, the row nil without one. */
    byte[] one(String key) {
        byte[] row = rows().get(key);
        PackedWriter writer = begin("row");
        if (row == null) {
            writer.nil();
        } else {
            writer.raw(row, 0, row.length);
        }
        return writer.toByteArray();
    }

    private PackedWriter begin(String field) {
        PackedWriter writer = new PackedWriter(BYTES_BESIDE_ROWS);
        writer.mapHeader(2);
        writer.string("version").number(version);
        return writer.string(field);
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
