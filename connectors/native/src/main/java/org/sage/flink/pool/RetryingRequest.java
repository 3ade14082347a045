package org.sage.flink.pool;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.sage.flink.wire.CallResult;

/**
 * One request body, sent until it succeeds, fails for good, or runs out of attempts or time. Calls
 * back exactly once, unless it is cancelled, and never throws. Confined to the client's event loop:
 * no locks.
 *
 * <p>An attempt that finds no connection has not reached an engine and does not count against the
 * attempts. While the pool is down, for instance during its restart, calls wait for it as long as
 * they have time, and backpressure holds the stream.
 */
public final class RetryingRequest {

    static final String ATTEMPT = "x-sage-attempt";

    private static final int UNREACHABLE_STEP_MAX = 4; // 0.8 s at most

    /**
     * The request to send.
     *
     * @param deadlineNs on the clock of {@link System#nanoTime}
     * @param attemptsMax limit while the content may be the cause of a failure; while the pool is
     *     busy or unreachable the limit of the settings applies instead
     * @param avoidEndpoint the index of an endpoint that the first attempt should avoid, or -1
     */
    public record Spec(
            byte[] body,
            Map<String, String> headers,
            long deadlineNs,
            int attemptsMax,
            int avoidEndpoint) {}

    /** Validates the body of a 2xx response: the defect found, or an empty string. */
    public interface Check {
        String apply(byte[] body);
    }

    private static final HttpReply NO_REPLY =
            new HttpReply(
                    HttpReply.Classification.UNREACHABLE, 0, "", 0, CallResult.NO_BODY);

    private final PoolClient client;
    private final Spec spec;
    private final Check check;
    private final Consumer<CallResult> callback;

    private int attempts;
    private int unreachable; // attempts that found no connection
    private int endpoint;
    private long sentAtNs;
    private HttpReply last = NO_REPLY;
    private boolean done;
    private PoolHttpClient.Exchange exchange;
    private Future<?> deadline;
    private Future<?> pause;

    public RetryingRequest(
            PoolClient client, Spec spec, Check check, Consumer<CallResult> callback) {
        this.client = client;
        this.spec = spec;
        this.endpoint = spec.avoidEndpoint();
        this.check = check;
        this.callback = callback;
    }

    public void start() {
        deadline =
                client.schedule(
                        spec.deadlineNs() - System.nanoTime(), TimeUnit.NANOSECONDS, this::expire);
        attempt();
    }

    /** Ends the request and its connection without calling back. */
    public void cancel() {
        if (!done) {
            stop();
        }
    }

    public int attempts() {
        return attempts;
    }

    /** The reply of the latest attempt; its reason is empty before the first one has ended. */
    public HttpReply last() {
        return last;
    }

    /** The index of the endpoint of the latest attempt. */
    public int endpoint() {
        return endpoint;
    }

    private void attempt() {
        sentAtNs = System.nanoTime();
        endpoint = client.endpoints().next(endpoint, sentAtNs);
        attempts++;
        client.metrics().attempts().inc();
        if (attempts > 1) {
            client.metrics().retries().inc();
        }
        Map<String, String> headers = new LinkedHashMap<>(spec.headers());
        headers.put(ATTEMPT, Integer.toString(attempts));
        try {
            exchange = client.http().post(endpoint, spec.body(), headers, this::settle);
        } catch (IllegalArgumentException e) {
            String reason = "the request cannot be sent: " + e.getMessage();
            complete(CallResult.failure(0, attempts, reason));
        }
    }

    private void settle(HttpReply reply) {
        if (done) {
            return;
        }
        exchange = null;
        recordOutcome(reply);
        last = reply;
        if (reply.isOk()) {
            String defect = check.apply(reply.body());
            if (!defect.isEmpty()) {
                last = reply.unusable(defect);
            }
        }
        if (last.isRetryable() && hasAttemptsLeft()) {
            retryLater();
        } else {
            complete(last.result(attempts));
        }
    }

    private boolean hasAttemptsLeft() {
        switch (last.classification()) {
            case UNREACHABLE:
                unreachable++;
                return true;
            case BUSY:
                return attempts - unreachable < client.config().attemptsMax();
            default:
                return attempts - unreachable < spec.attemptsMax();
        }
    }

    private void recordOutcome(HttpReply reply) {
        if (reply.isEndpointFailure()) {
            double random = ThreadLocalRandom.current().nextDouble();
            client.endpoints().recordFailure(endpoint, System.nanoTime(), random);
        } else {
            client.endpoints().recordSuccess(endpoint, System.nanoTime());
        }
        client.metrics().urlsAway().set(client.endpoints().suspendedCount());
    }

    private void retryLater() {
        double random = ThreadLocalRandom.current().nextDouble();
        boolean noConnection = last.classification() == HttpReply.Classification.UNREACHABLE;
        // A connection attempt is cheap: keep the delay short, to notice soon that the pool is up.
        int step = noConnection ? Math.min(attempts, UNREACHABLE_STEP_MAX) : attempts;
        long delayMs = Backoff.delayMs(step, last.retryAfterMs(), random);
        long leftNs = spec.deadlineNs() - System.nanoTime();
        if (TimeUnit.MILLISECONDS.toNanos(delayMs) >= leftNs) {
            // No time is left for another attempt: the last reply is more useful than a timeout.
            complete(last.result(attempts));
            return;
        }
        client.metrics().queued().incrementAndGet();
        pause =
                client.schedule(
                        delayMs,
                        TimeUnit.MILLISECONDS,
                        () -> {
                            endPause();
                            attempt();
                        });
    }

    private void endPause() {
        if (pause != null) {
            pause = null;
            client.metrics().queued().decrementAndGet();
        }
    }

    private void expire() {
        complete(client.timeout(attempts, last.reason()));
    }

    private void complete(CallResult result) {
        if (!done) {
            stop();
            callback.accept(result);
        }
    }

    private void stop() {
        done = true;
        if (exchange != null) {
            double random = ThreadLocalRandom.current().nextDouble();
            client.endpoints().recordSilence(endpoint, sentAtNs, System.nanoTime(), random);
            exchange.abort();
        }
        deadline.cancel(false);
        if (pause != null) {
            pause.cancel(false);
            endPause();
        }
    }
}
