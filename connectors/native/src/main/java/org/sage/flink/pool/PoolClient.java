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
 * What a subtask's requests share: the settings, the connections, and one event loop on which all
 * of their state lives, timers and sockets alike.
 */
public final class PoolClient implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(PoolClient.class);
    private static final long CLOSE_MS_MAX = 1_000;

    private final PoolConfig config;
    private final PoolMetrics metrics;
    private final EventLoopGroup group;
    private final EventLoop loop;
    private final PoolHttpClient http;
    private final EndpointSelector urls;

    /**
     * @param firstTurn the address to begin with
     * @throws SSLException when an address is https and this JVM has no TLS
     */
    public PoolClient(PoolConfig config, Optional<String> key, PoolMetrics metrics, int firstTurn)
            throws SSLException {
        this.config = config;
        this.metrics = metrics;
        this.urls = new EndpointSelector(config.urls().size(), firstTurn, System.nanoTime());
        this.group =
                new MultiThreadIoEventLoopGroup(
                        1, new DefaultThreadFactory("pool-call", true), NioIoHandler.newFactory());
        this.loop = group.next();
        this.http = new PoolHttpClient(loop, config.urls(), config.path(), key, config.answerBytesMax());
    }

    public PoolConfig config() {
        return config;
    }

    PoolHttpClient http() {
        return http;
    }

    EndpointSelector urls() {
        return urls;
    }

    public PoolMetrics metrics() {
        return metrics;
    }

    public CallResult outOfTime(int attempts, String lastReason) {
        String last = lastReason.isEmpty() ? "" : "; the last attempt: " + lastReason;
        return CallResult.failure(0, attempts, "no answer within " + config.timeoutMs() + " ms" + last);
    }

    /** Runs it on the loop, soon; drops it after {@link #close}. */
    public void run(Runnable what) {
        quietly(() -> loop.execute(logged(what)));
    }

    public Future<?> after(long delay, TimeUnit unit, Runnable what) {
        return loop.schedule(logged(what), delay, unit);
    }

    /** Hands work to a loop that may have ended: what is dropped is in the checkpoint. */
    static void quietly(Runnable handing) {
        try {
            handing.run();
        } catch (RejectedExecutionException closed) {
            LOG.debug("dropped after close", closed);
        }
    }

    /** Aborts what is in flight. */
    @Override
    public void close() {
        quietly(() -> loop.execute(http::close));
        Future<?> ended = group.shutdownGracefully(0, CLOSE_MS_MAX, TimeUnit.MILLISECONDS);
        try {
            // So that nothing of this job runs when its classes are gone.
            ended.get(CLOSE_MS_MAX, TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        } catch (ExecutionException | TimeoutException e) {
            LOG.warn("a pool call's loop did not end in time", e);
        }
    }

    private static Runnable logged(Runnable what) {
        return () -> {
            try {
                what.run();
            } catch (RuntimeException e) {
                // A bug of ours; the operator's own timeout still answers the record.
                LOG.error("a pool call's step failed", e);
            }
        };
    }
}
