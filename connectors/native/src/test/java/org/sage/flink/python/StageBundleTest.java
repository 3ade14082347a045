package org.sage.flink.python;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.ElementGroup;

class StageBundleTest {

    private static final int ELEMENTS_MAX = 1000;

    private final StageBundle<byte[]> bundle = new StageBundle<>(false);

    private void add(int bytes) {
        byte[] value = new byte[bytes];
        bundle.add(new StreamRecord<>(value, bundle.elements().size()), value);
    }

    @Test
    void theFirstElementOfABundleCrossesByItself() {
        add(1);

        assertTrue(bundle.groupIsDue());
        assertArrayEquals(new byte[1], bundle.takeGroup().getValue());
        add(1);
        assertFalse(bundle.groupIsDue());
    }

    @Test
    void laterElementsCrossSixteenTogetherWithTheTimeOfTheLast() {
        add(1);
        bundle.takeGroup();
        for (int n = 1; n < 16; n++) {
            add(1);
            assertFalse(bundle.groupIsDue());
        }
        add(1);

        assertTrue(bundle.groupIsDue());
        StreamRecord<byte[]> group = bundle.takeGroup();
        assertEquals(16, ElementGroup.split(group.getValue()).size());
        assertEquals(16, group.getTimestamp());
        assertFalse(bundle.hasGroup());
    }

    @Test
    void aLargeElementDoesNotWaitForOthers() {
        add(1);
        bundle.takeGroup();
        add(16 << 10);

        assertTrue(bundle.groupIsDue());
    }

    @Test
    void anElementThatIsABatchDoesNotWaitForOthers() {
        StageBundle<byte[]> batches = new StageBundle<>(true);
        for (byte[] batch : List.of(new byte[1], new byte[1])) {
            batches.add(new StreamRecord<>(batch), batch);

            assertTrue(batches.groupIsDue());
            batches.takeGroup();
        }
    }

    @Test
    void aBundleIsFullByTheNumberOrTheBytesOfItsElements() {
        add(1);
        assertTrue(bundle.isFull(1));
        assertFalse(bundle.isFull(ELEMENTS_MAX));

        add(4 << 20);
        assertTrue(bundle.isFull(ELEMENTS_MAX));

        bundle.clear();
        add(1);
        assertFalse(bundle.isFull(ELEMENTS_MAX));
    }

    @Test
    void elementsThatCrossedStayUntilTheBundleIsCleared() {
        add(1);
        add(2);
        bundle.takeGroup();

        assertEquals(2, bundle.elements().size());
        bundle.clear();
        assertTrue(bundle.isEmpty());
    }
}
