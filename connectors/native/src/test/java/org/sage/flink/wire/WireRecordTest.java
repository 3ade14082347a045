package org.sage.flink.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.HexFormat;
import java.util.Map;
import org.junit.jupiter.api.Test;

class WireRecordTest {

    /**
     * In Python: encode(Record(id="a/0/7", value=bytes([1, 2]), timestamp_ms=5, key=b"k",
     * headers={"h": b"v"}, origin="o")).
     */
    private static final byte[] PYTHON =
            HexFormat.of().parseHex("96a5612f302f37c402010205c4016b81a168c40176a16f");

    @Test
    void bytesThatPythonWroteAreReadAndWrittenTheSame() {
        WireRecord record = WireRecord.decode(PYTHON);

        assertEquals("a/0/7", record.id());
        assertArrayEquals(new byte[] {1, 2}, record.value());
        assertEquals(5, record.timestampMs());
        assertArrayEquals("k".getBytes(), record.key());
        assertArrayEquals("v".getBytes(), record.headers().get("h"));
        assertEquals("o", record.origin());
        assertArrayEquals(PYTHON, record.encode());
    }

    @Test
    void nothingSurvivesTheRoundTripAsNothing() {
        WireRecord read =
                WireRecord.decode(new WireRecord("i", null, 0, null, Map.of(), "i").encode());

        assertNull(read.value());
        assertNull(read.key());
        assertEquals(Map.of(), read.headers());
    }

    @Test
    void aValueThatIsNotEncodedIsRefusedByName() {
        byte[] withMap = HexFormat.of().parseHex("96a16980" + "00" + "c0" + "80" + "a169");

        Exception error =
                assertThrows(IllegalArgumentException.class, () -> WireRecord.decode(withMap));

        assertEquals(
                "record 'i': the value must be bytes, text or nil here, got map; encode it in a"
                        + " step before",
                error.getMessage());
    }

    @Test
    void otherBytesAreNoRecord() {
        assertThrows(IllegalArgumentException.class, () -> WireRecord.decode(new byte[] {1}));
        assertThrows(IllegalArgumentException.class, () -> WireRecord.decode(new byte[0]));
    }
}
