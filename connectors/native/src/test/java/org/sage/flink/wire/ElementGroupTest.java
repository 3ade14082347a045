package org.sage.flink.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class ElementGroupTest {

    @Test
    void aGroupIsSplitIntoItsElements() {
        List<byte[]> elements = List.of(new byte[0], new byte[] {1}, new byte[70_000]);

        byte[] group = ElementGroup.encode(elements);

        assertTrue(ElementGroup.is(group));
        List<byte[]> split = ElementGroup.split(group);
        assertEquals(3, split.size());
        for (int i = 0; i < 3; i++) {
            assertArrayEquals(elements.get(i), split.get(i));
        }
    }

    @Test
    void recordsBatchesAndDeltasAreNoGroups() {
        byte[] record = new WireRecord("r", null, 0, null, Map.of(), "").encode();

        assertFalse(ElementGroup.is(record));
        assertFalse(ElementGroup.is(WireBatch.encode(List.of(record), record.length)));
        assertFalse(ElementGroup.is(CounterDelta.encode(Map.of("a", 1L))));
        assertFalse(ElementGroup.is(new byte[0]));
    }

    @Test
    void bytesThatAreNoGroupAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> ElementGroup.split(new byte[] {1, 2}));
    }
}
