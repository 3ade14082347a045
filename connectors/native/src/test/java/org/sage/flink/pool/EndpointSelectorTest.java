package org.sage.flink.pool;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class EndpointSelectorTest {

    private static final long MS = 1_000_000;

    @Test
    void eachIsTakenInTurnFromTheFirstTurnOn() {
        EndpointSelector urls = new EndpointSelector(3, 4, 0);

        assertEquals("1201", taken(urls, 4, 0));
    }

    @Test
    void aRetryGoesToAnotherFirst() {
        EndpointSelector urls = new EndpointSelector(2, 0, 0);

        assertEquals(1, urls.next(0, 0));
        assertEquals(0, new EndpointSelector(1, 0, 0).next(0, 0));
    }

    @Test
    void oneThatFailedIsPutAsideAndThenTriedByOneRequest() {
        EndpointSelector urls = new EndpointSelector(2, 0, 0);

        urls.failed(0, 0, 0.99);

        assertEquals(1, urls.away());
        assertEquals("1111", taken(urls, 4, 100 * MS));
        assertEquals("0111", taken(urls, 4, 600 * MS), "one tries it");
        urls.worked(0, 600 * MS);
        assertEquals("0101", taken(urls, 4, 700 * MS));
        assertEquals(0, urls.away());
    }

    @Test
    void theNextBackOffIsTwiceAsLong() {
        EndpointSelector urls = new EndpointSelector(2, 0, 0);
        urls.failed(0, 0, 0.99);
        urls.failed(0, 1 * MS, 0.99); // a request of the same moment
        taken(urls, 2, 600 * MS);

        urls.failed(0, 610 * MS, 0.99);

        assertEquals("1111", taken(urls, 4, 1_500 * MS));
        assertEquals("01", taken(urls, 2, 1_700 * MS));
    }

    @Test
    void whereAllAreAsideTheSoonestBackIsAsked() {
        EndpointSelector urls = new EndpointSelector(2, 0, 0);
        urls.failed(0, 0, 0);
        urls.failed(1, 10 * MS, 0);

        assertEquals(0, urls.next(-1, 20 * MS));
        assertEquals(0, urls.next(-1, 20 * MS));
        assertEquals(1, urls.next(0, 20 * MS), "a retry elsewhere all the same");
    }

    @Test
    void aRetryStaysWhereOnlyThatOneIsWell() {
        EndpointSelector urls = new EndpointSelector(2, 0, 0);
        urls.failed(1, 0, 0.99);

        assertEquals(0, urls.next(0, 1 * MS));
    }

    @Test
    void oneThatLeavesARequestWithoutAWordIsPutAsideUnlessItAnsweredAnother() {
        EndpointSelector urls = new EndpointSelector(2, 0, 0);
        urls.worked(0, 20 * MS);

        urls.silent(0, 10 * MS, 100 * MS, 0.99);
        urls.silent(1, 10 * MS, 100 * MS, 0.99);

        assertEquals("0000", taken(urls, 4, 110 * MS));
    }

    private static String taken(EndpointSelector urls, int times, long nowNs) {
        return IntStream.range(0, times)
                .mapToObj(i -> Integer.toString(urls.next(-1, nowNs)))
                .reduce("", String::concat);
    }
}
