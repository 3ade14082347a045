package org.sage.flink.pool;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class EndpointSelectorTest {

    private static final long MS = 1_000_000;

    @Test
    void endpointsAreChosenRoundRobinFromTheFirstTurn() {
        EndpointSelector selector = new EndpointSelector(3, 4, 0);

        assertEquals("1201", choose(selector, 4, 0));
    }

    @Test
    void aRetryPrefersAnotherEndpoint() {
        EndpointSelector selector = new EndpointSelector(2, 0, 0);

        assertEquals(1, selector.next(0, 0));
        assertEquals(0, new EndpointSelector(1, 0, 0).next(0, 0));
    }

    @Test
    void aSuspendedEndpointIsProbedByOneRequest() {
        EndpointSelector selector = new EndpointSelector(2, 0, 0);

        selector.recordFailure(0, 0, 0.99);

        assertEquals(1, selector.suspendedCount());
        assertEquals("1111", choose(selector, 4, 100 * MS));
        assertEquals("0111", choose(selector, 4, 600 * MS), "one tries it");
        selector.recordSuccess(0, 600 * MS);
        assertEquals("0101", choose(selector, 4, 700 * MS));
        assertEquals(0, selector.suspendedCount());
    }

    @Test
    void theNextSuspensionIsTwiceAsLong() {
        EndpointSelector selector = new EndpointSelector(2, 0, 0);
        selector.recordFailure(0, 0, 0.99);
        selector.recordFailure(0, 1 * MS, 0.99); // a request of the same moment
        choose(selector, 2, 600 * MS);

        selector.recordFailure(0, 610 * MS, 0.99);

        assertEquals("1111", choose(selector, 4, 1_500 * MS));
        assertEquals("01", choose(selector, 2, 1_700 * MS));
    }

    @Test
    void ifAllAreSuspendedTheFirstToReturnIsChosen() {
        EndpointSelector selector = new EndpointSelector(2, 0, 0);
        selector.recordFailure(0, 0, 0);
        selector.recordFailure(1, 10 * MS, 0);

        assertEquals(0, selector.next(-1, 20 * MS));
        assertEquals(0, selector.next(-1, 20 * MS));
        assertEquals(1, selector.next(0, 20 * MS), "a retry elsewhere all the same");
    }

    @Test
    void aRetryKeepsTheOnlyHealthyEndpoint() {
        EndpointSelector selector = new EndpointSelector(2, 0, 0);
        selector.recordFailure(1, 0, 0.99);

        assertEquals(0, selector.next(0, 1 * MS));
    }

    @Test
    void aSilentEndpointIsSuspendedUnlessItAnsweredAnotherRequest() {
        EndpointSelector selector = new EndpointSelector(2, 0, 0);
        selector.recordSuccess(0, 20 * MS);

        selector.recordSilence(0, 10 * MS, 100 * MS, 0.99);
        selector.recordSilence(1, 10 * MS, 100 * MS, 0.99);

        assertEquals("0000", choose(selector, 4, 110 * MS));
    }

    private static String choose(EndpointSelector selector, int times, long nowNs) {
        return IntStream.range(0, times)
                .mapToObj(i -> Integer.toString(selector.next(-1, nowNs)))
                .reduce("", String::concat);
    }
}
