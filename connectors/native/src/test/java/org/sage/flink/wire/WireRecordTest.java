package org.sage.flink.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.HexFormat;
import java.util.Map;
import org.junit.jupiter.api.Test;

class WireRecordTest {

    /**
     * In Python: encode(Record(id="a/0/7", value=bytes([1, 2]), timestamp_ms=5, key=b"k",
     * headers={"h": b"v"}, origin="o")).
     */
    private static final byte[] PYTHON =
            HexFormat.of()
                    .parseHex("99a5612f302f37c402010205c4016b81a168c40176a16fa6757073657274a0a0");

    /** The same in the form before records had a kind. */
    private static final String BEFORE = "96a5612f302f37c402010205c4016b81a168c40176a16f";

    /** In Python: encode(Record(id="r", value=None, origin="o").delete_of("a", version="v2", id="r")). */
    private static final String DELETE = "99a172c000c080a16fa664656c657465a161a27632";

    /** A delete as it was before: an upsert with the value {"$delete": {"doc": "a", "keep": "v2"}}. */
    private static final String DELETE_BEFORE =
            "96a17281a72464656c65746582a3646f63a161a46b656570a2763200c080a16f";

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
    void aDeleteThatPythonWroteIsADelete() {
        WireRecord record = WireRecord.decode(HexFormat.of().parseHex(DELETE));

        assertTrue(record.isDelete());
        assertEquals("a", record.document());
        assertEquals("v2", record.version());
        assertEquals(DELETE, HexFormat.of().formatHex(record.encode()));
    }

    @Test
    void recordsOfAnOlderJobsStateAreBroughtIntoTodaysForm() {
        assertArrayEquals(PYTHON, upgrade(BEFORE));
        assertEquals(DELETE, HexFormat.of().formatHex(upgrade(DELETE_BEFORE)));
        assertArrayEquals(PYTHON, WireRecord.upgrade(PYTHON));
    }

    @Test
    void aValueShapedLikeAnOldDeleteIsDataInTodaysForm() {
        String now = "99" + DELETE_BEFORE.substring(2) + "a6757073657274a0a0";

        assertEquals(now, HexFormat.of().formatHex(upgrade(now)));
    }

    @Test
    void anOldValueThatIsNotQuiteADeleteIsData() {
        String emptyDocument = "96a17281a72464656c65746582a3646f63a0a46b656570a2763200c080a16f";
        String withoutVersion = "96a17281a72464656c65746581a3646f63a16100c080a16f";

        for (String old : new String[] {emptyDocument, withoutVersion}) {
            assertEquals(
                    "99" + old.substring(2) + "a6757073657274a0a0",
                    HexFormat.of().formatHex(upgrade(old)));
        }
    }

    private static byte[] upgrade(String hex) {
        return WireRecord.upgrade(HexFormat.of().parseHex(hex));
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
        byte[] withMap = HexFormat.of().parseHex("99a16980" + "00" + "c0" + "80" + "a169" + "a0a0a0");

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
