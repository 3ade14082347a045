package org.sage.flink.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class WireBatchTest {

    @Test
    void aBatchOfAnySizeIsSplitIntoItsRecords() {
        for (int size : new int[] {0, 1, 15, 16, 70_000}) {
            List<byte[]> records = new ArrayList<>();
            int bytes = 0;
            for (int i = 0; i < size; i++) {
                byte[] record = new WireRecord("r" + i, null, i, null, Map.of(), "").encode();
                records.add(record);
                bytes += record.length;
            }

            List<byte[]> split = WireBatch.split(WireBatch.encode(records, bytes));

            assertEquals(size, split.size());
            if (size > 0) {
                byte[] last = records.get(size - 1);
                assertArrayEquals(
                        WireBatch.encode(List.of(last), last.length), split.get(size - 1));
            }
        }
    }

    @Test
    void bytesThatAreNoBatchAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> WireBatch.split(new byte[] {1}));
    }
}
