package org.sage.flink.broadcast;

import java.io.IOException;
import java.io.Serializable;
import java.util.Arrays;
import java.util.Base64;
import java.util.TreeMap;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedReader;

/**
 * Settings of a broadcast join, checked by {@code sage_flink.flow.stateful.broadcasts}.
 *
 * @param into the field of the output that holds the rows
 * @param field the path of the field that names the row of a record; empty for all rows
 * @param initial the MessagePack of the rows before the first change, by Flink's text of their key
 */
record BroadcastConfig(
        FailedRecords failed, String into, String field, TreeMap<String, byte[]> initial)
        implements Serializable {

    static BroadcastConfig of(String json) {
        try {
            JsonNode node = new ObjectMapper().readTree(json);
            return new BroadcastConfig(
                    new FailedRecords(
                            node.get("step").asText(),
                            node.get("job").asText(),
                            node.get("run").asText()),
                    node.get("into").asText(),
                    node.get("field").asText(),
                    rows(Base64.getDecoder().decode(node.get("initial").asText())));
        } catch (IOException e) {
            throw new IllegalArgumentException(
                    "the settings of a broadcast join are not JSON: " + json, e);
        }
    }

    private static TreeMap<String, byte[]> rows(byte[] packed) {
        TreeMap<String, byte[]> rows = new TreeMap<>();
        PackedReader reader = new PackedReader(packed);
        int count = reader.mapHeader();
        for (int i = 0; i < count; i++) {
            byte[] key = reader.bytes();
            int from = reader.position();
            reader.skip();
            rows.put(Keys.text(key), Arrays.copyOfRange(packed, from, reader.position()));
        }
        return rows;
    }

    String step() {
        return failed.step();
    }
}
