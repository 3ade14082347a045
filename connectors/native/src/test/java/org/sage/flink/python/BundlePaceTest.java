package org.sage.flink.python;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class BundlePaceTest {

    private static final long BUNDLE_MS = 10;

    private final BundlePace pace = new BundlePace(BUNDLE_MS, false);

    @Test
    void aBundleKeepsItsLengthWhileEndsAreCheap() {
        assertEquals(0, BundlePace.delay(0, BUNDLE_MS));
        assertEquals(0, BundlePace.delay(2, BUNDLE_MS));
    }

    @Test
    void aBundleLastsFourTimesAsLongAsTheEndOfTheLastOne() {
        assertEquals(120 - BUNDLE_MS, BundlePace.delay(30, BUNDLE_MS));
    }

    @Test
    void aBundleIsBoundedAfterAnEndThatWaitedForItsConsumer() {
        assertEquals(250 - BUNDLE_MS, BundlePace.delay(60_000, BUNDLE_MS));
    }

    @Test
    void aRecordWaitsForOthersAlsoAfterAPause() {
        pace.ended(100, 102, 50);

        assertFalse(pace.endsAtOnce(90));
    }

    @Test
    void aBatchAfterAPauseDoesNotWaitHoweverLongTheStoreTook() {
        BundlePace writes = new BundlePace(BUNDLE_MS, true);

        assertEquals(0, writes.ended(100, 900, 50));
        assertTrue(writes.endsAtOnce(51));
        assertFalse(writes.endsAtOnce(50));
    }

    @Test
    void aTaskThatWaitedSinceDoesNotDelayItsBundle() {
        assertEquals(110, pace.ended(100, 130, 50));

        assertEquals(0, pace.delayInVain(50));
        assertEquals(110, pace.delayInVain(51));
        assertEquals(0, pace.delayInVain(52));
    }
}
