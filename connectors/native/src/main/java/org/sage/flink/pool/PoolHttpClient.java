package org.sage.flink.pool;

import java.io.File;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;
import javax.net.ssl.SSLException;
import org.apache.flink.shaded.netty4.io.netty.bootstrap.Bootstrap;
import org.apache.flink.shaded.netty4.io.netty.buffer.PooledByteBufAllocator;
import org.apache.flink.shaded.netty4.io.netty.buffer.Unpooled;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelFuture;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelOption;
import org.apache.flink.shaded.netty4.io.netty.channel.EventLoop;
import org.apache.flink.shaded.netty4.io.netty.channel.group.ChannelGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.group.DefaultChannelGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.socket.nio.NioSocketChannel;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.DefaultFullHttpRequest;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.FullHttpRequest;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpHeaderNames;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpMethod;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpVersion;
import org.apache.flink.shaded.netty4.io.netty.handler.ssl.SslContext;
import org.apache.flink.shaded.netty4.io.netty.handler.ssl.SslContextBuilder;
import org.apache.flink.shaded.netty4.io.netty.util.concurrent.DefaultThreadFactory;

/**
 * HTTP/1.1 client with keep-alive connections, one request at a time on each. Does not retry, with
 * one exception that every keep-alive client needs: a reused connection that was closed before the
 * response started.
 *
 * <p>Confined to one event loop: call it there, callbacks run there. There are never more
 * connections than requests in flight. DNS lookups block, so they run on a thread of their own.
 * HTTP/1.1, because the engines behind the pool support nothing newer.
 *
 * <p>Netty and not java.net.http, by measurement, through {@link PoolClient} and a call executor:
 * 500-byte prompts, the engine on the same two cores, JDK 17, rounds 4 and 5 of 5 (10,000 calls
 * each; 4,000 at c=1), the lower of each; the machine was busy, so read the ratios:
 *
 * <pre>
 *                           processor time a call     p50
 *                           java.net.http   Netty     java.net.http   Netty
 * c=1, no engine delay         358 us       212 us       0.28 ms      0.20 ms
 * c=64, no engine delay        180 us        61 us       9.7 ms       4.5 ms
 * c=64, answer after 60 ms     207 us        87 us       69 ms        65 ms
 * </pre>
 *
 * The rest is system calls: a wake-up, a write and a read for each call.
 */
final class PoolHttpClient implements AutoCloseable {

    private static final int CONNECT_TIMEOUT_MS = 5_000;

    private final EventLoop loop;
    private final List<HttpEndpoint> endpoints;
    private final String authorization;
    private final long bytesMax;
    private final Bootstrap bootstrap;
    private final ChannelGroup channels;
    private final ExecutorService dns =
            Executors.newSingleThreadExecutor(new DefaultThreadFactory("pool-call-dns", true));
    private boolean closed;

    /**
     * @param ca file in PEM of the authorities of an https address; empty: those of the JVM
     * @param bytesMax limit on the body of a response
     * @throws SSLException when an address is https and this JVM has no TLS
     * @throws IllegalArgumentException when {@code ca} is no such file
     */
    PoolHttpClient(
            EventLoop loop,
            List<String> urls,
            String path,
            Optional<String> key,
            String ca,
            long bytesMax)
            throws SSLException {
        this.loop = loop;
        this.authorization = key.map(secret -> "Bearer " + secret).orElse(null);
        this.bytesMax = bytesMax;
        boolean secure = urls.stream().anyMatch(url -> url.startsWith("https:"));
        SslContext tls = secure ? tls(ca) : null;
        this.endpoints = urls.stream().map(url -> HttpEndpoint.of(url + path, tls)).toList();
        this.channels = new DefaultChannelGroup(loop);
        this.bootstrap =
                new Bootstrap()
                        .group(loop)
                        .channel(NioSocketChannel.class)
                        .option(ChannelOption.TCP_NODELAY, true)
                        .option(ChannelOption.SO_KEEPALIVE, true)
                        .option(ChannelOption.CONNECT_TIMEOUT_MILLIS, CONNECT_TIMEOUT_MS)
                        .option(ChannelOption.ALLOCATOR, new HeapWriteAllocator());
    }

    private static SslContext tls(String ca) throws SSLException {
        SslContextBuilder builder = SslContextBuilder.forClient();
        return (ca.isEmpty() ? builder : builder.trustManager(new File(ca))).build();
    }

    /** A request in flight; completes once, unless it is aborted. */
    final class Exchange {
        private final HttpEndpoint endpoint;
        private final byte[] body;
        private final Map<String, String> headers;
        private final Consumer<HttpReply> callback;
        private HttpConnection connection;
        private boolean resent;
        private boolean done;

        private Exchange(
                HttpEndpoint endpoint,
                byte[] body,
                Map<String, String> headers,
                Consumer<HttpReply> callback) {
            this.endpoint = endpoint;
            this.body = body;
            this.headers = headers;
            this.callback = callback;
        }

        /** Closes the connection, so that the engine can stop working; skips the callback. */
        void abort() {
            done = true;
            if (connection != null) {
                connection.close();
            }
        }

        void complete(HttpReply reply) {
            if (isActive()) {
                done = true;
                callback.accept(reply);
            }
        }

        /**
         * The connection was lost without a response.
         *
         * @param stale whether it was a reused connection and the response had not started
         */
        void connectionLost(Throwable cause, boolean stale) {
            connection = null;
            if (stale && !resent && isActive()) {
                resent = true; // the server closed it while idle, as our request was on its way
                connect(this);
                return;
            }
            complete(HttpReply.connectionLost(endpoint.url(), cause));
        }

        private boolean isActive() {
            return !done && !closed;
        }

        private FullHttpRequest request() {
            FullHttpRequest request =
                    new DefaultFullHttpRequest(
                            HttpVersion.HTTP_1_1,
                            HttpMethod.POST,
                            endpoint.target(),
                            Unpooled.wrappedBuffer(body));
            request.headers()
                    .set(HttpHeaderNames.HOST, endpoint.authority())
                    .set(HttpHeaderNames.CONTENT_TYPE, "application/json")
                    .set(HttpHeaderNames.ACCEPT, "application/json")
                    .setInt(HttpHeaderNames.CONTENT_LENGTH, body.length);
            headers.forEach(request.headers()::set);
            if (authorization != null) {
                request.headers().set(HttpHeaderNames.AUTHORIZATION, authorization);
            }
            return request;
        }
    }

    /**
     * Sends a POST of JSON to the endpoint with this index. {@code callback} gets the outcome once,
     * always after this method has returned.
     *
     * @throws IllegalArgumentException when a header cannot be sent
     */
    Exchange post(
            int endpoint, byte[] body, Map<String, String> headers, Consumer<HttpReply> callback) {
        Exchange exchange = new Exchange(endpoints.get(endpoint), body, headers, callback);
        FullHttpRequest request = exchange.request();
        HttpConnection idle = exchange.endpoint.takeIdle();
        if (idle == null) {
            connect(exchange);
        } else {
            exchange.connection = idle;
            idle.send(exchange, request, true);
        }
        return exchange;
    }

    private void connect(Exchange exchange) {
        HttpEndpoint endpoint = exchange.endpoint;
        Runnable lookup =
                () -> {
                    var address = new InetSocketAddress(endpoint.host(), endpoint.port());
                    PoolClient.dropIfClosed(() -> loop.execute(() -> connect(exchange, address)));
                };
        PoolClient.dropIfClosed(() -> dns.execute(lookup));
    }

    private void connect(Exchange exchange, InetSocketAddress address) {
        if (!exchange.isActive()) {
            return;
        }
        HttpEndpoint endpoint = exchange.endpoint;
        if (address.isUnresolved()) {
            Exception cause = new UnknownHostException("unknown host");
            exchange.complete(HttpReply.unreachable(endpoint.url(), cause));
            return;
        }
        HttpConnection connection = new HttpConnection(endpoint.idle(), bytesMax);
        exchange.connection = connection;
        ChannelFuture connecting =
                bootstrap.clone().handler(endpoint.initializer(connection)).connect(address);
        connection.attach(connecting.channel());
        channels.add(connecting.channel());
        connecting.addListener(
                future -> {
                    if (!future.isSuccess()) {
                        exchange.complete(HttpReply.unreachable(endpoint.url(), future.cause()));
                    } else if (!exchange.done) {
                        connection.send(exchange, exchange.request(), false);
                    }
                });
    }

    /**
     * Closes the connections and skips all callbacks. The event loop's own shutdown does not
     * suffice: without a quiet period it may end before its channels are closed, and leak them.
     */
    @Override
    public void close() {
        closed = true;
        channels.close();
        dns.shutdownNow();
    }

    /**
     * Pooled direct memory for reads, with one arena because there is one thread; heap memory for
     * writes. A TaskManager's direct memory is scarce, and requests of megabytes would be copied
     * into it in full, for all requests in flight.
     */
    private static final class HeapWriteAllocator extends PooledByteBufAllocator {
        HeapWriteAllocator() {
            super(true, 0, 1, 8192, 6, 0, 64, true);
        }

        @Override
        public boolean isDirectBufferPooled() {
            return false;
        }
    }
}
