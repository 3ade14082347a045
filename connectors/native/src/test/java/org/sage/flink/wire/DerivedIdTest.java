package org.sage.flink.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

class DerivedIdTest {

    @Test
    void anIdIsThatOfPython() {
        // derived_id("r\u00e9/1", "job/ask", 0) and derived_id("a" * 200, "s", 7) in Python
        assertEquals("e625eb02ed76b2e3dabe328c4ba6d8d6", DerivedId.of("r\u00e9/1", "job/ask", 0));
        assertEquals("dbd1c28009d2265e2229ed27b4983f00", DerivedId.of("a".repeat(200), "s", 7));
    }
}
