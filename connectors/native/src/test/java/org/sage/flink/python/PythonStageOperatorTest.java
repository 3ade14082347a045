package org.sage.flink.python;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

class PythonStageOperatorTest {

    private static final long BUNDLE_MS = 10;

    @Test
    void aBundleKeepsItsLengthWhileEndsAreCheap() {
        assertEquals(0, PythonStageOperator.delay(0, BUNDLE_MS));
        assertEquals(0, PythonStageOperator.delay(2, BUNDLE_MS));
    }

    @Test
    void aBundleLastsFourTimesAsLongAsTheEndOfTheLastOne() {
        assertEquals(120 - BUNDLE_MS, PythonStageOperator.delay(30, BUNDLE_MS));
    }

    @Test
    void aBundleIsBoundedAfterAnEndThatWaitedForItsConsumer() {
        assertEquals(250 - BUNDLE_MS, PythonStageOperator.delay(60_000, BUNDLE_MS));
    }
}
