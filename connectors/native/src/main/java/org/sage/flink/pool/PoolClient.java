package org.sage.flink.pool;

import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.SSLException;
import org.apache.flink.shaded.netty4.io.netty.channel.EventLoop;
import org.apache.flink.shaded.netty4.io.netty.channel.EventLoopGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.MultiThreadIoEventLoopGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.nio.NioIoHandler;
import org.apache.flink.shaded.netty4.io.netty.util.concurrent.DefaultThreadFactory;
import org.sage.flink.wire.CallResult;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The pool client of one subtask: settings, metrics, connections, endpoint selection, and the event
 * loop that confines all of their state, timers and sockets included.
 */
public final class PoolClient implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(PoolClient.class);
    private static final long CLOSE_MS_MAX = 1_000;

    private final PoolConfig config;
    private final PoolMetrics metrics;
    private final EventLoopGroup group;
    private final EventLoop loop;
    private final PoolHttpClient http;
    private final EndpointSelector endpoints;

    /**
     * @param firstTurn the index of the first endpoint to use
     * @throws SSLException when an address is https and this JVM has no TLS
     */
    public PoolClient(PoolConfig config, Optional<String> key, PoolMetrics metrics, int firstTurn)
            throws SSLException {
        this.config = config;
        this.metrics = metrics;
        this.endpoints = new EndpointSelector(config.urls().size(), firstTurn, System.nanoTime());
        this.group =
                new MultiThreadIoEventLoopGroup(
                        1, new DefaultThreadFactory("pool-call", true), NioIoHandler.newFactory());
        this.loop = group.next();
        this.http =
                new PoolHttpClient(
                        loop,
                        config.urls(),
                        config.path(),
                        key,
                        config.ca(),
                        config.answerBytesMax());
    }

    public PoolConfig config() {
        return config;
    }

    public PoolMetrics metrics() {
        return metrics;
    }

    PoolHttpClient http() {
        return http;
    }

    EndpointSelector endpoints() {
        return endpoints;
    }

    /** The failure of a call whose timeout has expired. */
    public CallResult timeout(int attempts, String lastReason) {
        String last = lastReason.isEmpty() ? "" : "; the last attempt: " + lastReason;
        String reason = "no answer within " + config.timeoutMs() + " ms" + last;
        return CallResult.failure(0, attempts, reason);
    }

    /** Runs {@code task} on the event loop, asynchronously; dropped after {@link #close}. */
    public void run(Runnable task) {
        dropIfClosed(() -> loop.execute(logErrors(task)));
    }

    /** Runs {@code task} on the event loop after {@code delay}. */
    public Future<?> schedule(long delay, TimeUnit unit, Runnable task) {
        return loop.schedule(logErrors(task), delay, unit);
    }

    /** Submits to an executor that may be shut down; the checkpoint covers what is dropped. */
    static void dropIfClosed(Runnable submission) {
        try {
            submission.run();
        } catch (RejectedExecutionException closed) {
            LOG.debug("dropped after close", closed);
        }
    }

    /** Aborts the requests in flight. */
    @Override
    public void close() {
        dropIfClosed(() -> loop.execute(http::close));
        Future<?> shutdown = group.shutdownGracefully(0, CLOSE_MS_MAX, TimeUnit.MILLISECONDS);
        try {
            // No code of this job may run after its class loader is closed.
            shutdown.get(CLOSE_MS_MAX, TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        } catch (ExecutionException | TimeoutException e) {
            LOG.warn("the event loop of a pool call did not end within {} ms", CLOSE_MS_MAX, e);
        }
    }

    private static Runnable logErrors(Runnable task) {
        return () -> {
            try {
                task.run();
            } catch (RuntimeException e) {
                // A bug in this package; the operator's own timeout still completes the record.
                LOG.error("a task of a pool call failed", e);
            }
        };
    }
}
