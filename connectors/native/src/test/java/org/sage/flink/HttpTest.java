package org.sage.flink;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(30)
class HttpTest {

    @Test
    void theKeyGoesIntoTheAuthorizationHeader() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(200, "{}"));
                Http http = new Http(List.of(pool.url()), "/p", Optional.of("k"), Thread::new)) {
            http.post(http.url(0), new byte[0], null).get(5, TimeUnit.SECONDS);

            assertEquals("Bearer k", pool.asked.get(0).headers().getFirst("Authorization"));
        }
    }

    @Test
    void urlsAreTakenInTurn() {
        try (Http http = new Http(List.of("http://a", "http://b"), "/p", Optional.empty(), Thread::new)) {
            assertEquals("http://a/p", http.url(0));
            assertEquals("http://b/p", http.url(1));
            assertEquals("http://a/p", http.url(2));
        }
    }

    @Test
    void closingAbortsWhatIsInFlight() throws Exception {
        CountDownLatch arrived = new CountDownLatch(1);
        try (FakePool pool =
                new FakePool(
                        (n, asked) -> {
                            arrived.countDown();
                            Thread.sleep(20_000);
                            return null;
                        })) {
            Http http = new Http(List.of(pool.url()), "/p", Optional.empty(), Thread::new);
            var sent = http.post(http.url(0), new byte[0], null);
            assertTrue(arrived.await(5, TimeUnit.SECONDS));

            http.close();

            Throwable error = sent.handle((response, why) -> why).get(5, TimeUnit.SECONDS);
            // The client may be first to say so, and then wraps it.
            Throwable cause = error instanceof CompletionException ? error.getCause() : error;
            assertTrue(cause instanceof CancellationException, String.valueOf(error));
        }
    }

    @Test
    void aBodyAboveTheCapIsNotRead() throws Exception {
        try (FakePool pool = new FakePool((n, asked) -> new FakePool.Said(200, "12345"))) {
            assertTrue(body(pool, 4).isEmpty());
            assertArrayEquals("12345".getBytes(), body(pool, 5).orElseThrow());
        }
    }

    private static Optional<byte[]> body(FakePool pool, long bytesMax) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(pool.url())).build();
        return HttpClient.newHttpClient()
                .send(request, info -> new CappedBody(bytesMax))
                .body();
    }
}
