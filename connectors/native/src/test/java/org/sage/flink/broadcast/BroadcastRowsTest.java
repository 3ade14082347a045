package org.sage.flink.broadcast;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;

class BroadcastRowsTest {

    private static final byte[] ROW = {(byte) 0x80};

    @Test
    void onlyTheDeletesOfInitialRowsAreKept() {
        BroadcastRows rows = new BroadcastRows(Map.of("initial", ROW));
        rows.change(1, Map.of("new", ROW, "other", ROW));
        rows.change(2, Map.of("new", BroadcastRows.DELETED, "initial", BroadcastRows.DELETED));

        assertEquals(Set.of("initial", "other"), rows.changed().keySet());
        assertEquals(2, rows.version());
    }
}
