package org.sage.flink.pool;

import java.net.InetSocketAddress;
import java.net.URI;
import java.net.UnknownHostException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import javax.net.ssl.SSLException;
import org.apache.flink.shaded.netty4.io.netty.bootstrap.Bootstrap;
import org.apache.flink.shaded.netty4.io.netty.buffer.PooledByteBufAllocator;
import org.apache.flink.shaded.netty4.io.netty.buffer.Unpooled;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelFuture;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelInitializer;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelOption;
import org.apache.flink.shaded.netty4.io.netty.channel.EventLoop;
import org.apache.flink.shaded.netty4.io.netty.channel.group.ChannelGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.group.DefaultChannelGroup;
import org.apache.flink.shaded.netty4.io.netty.channel.socket.SocketChannel;
import org.apache.flink.shaded.netty4.io.netty.channel.socket.nio.NioSocketChannel;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.DefaultFullHttpRequest;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.FullHttpRequest;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpClientCodec;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpDecoderConfig;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpHeaderNames;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpMethod;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpVersion;
import org.apache.flink.shaded.netty4.io.netty.handler.ssl.SslContext;
import org.apache.flink.shaded.netty4.io.netty.handler.ssl.SslContextBuilder;
import org.apache.flink.shaded.netty4.io.netty.util.concurrent.DefaultThreadFactory;

/**
 * Single requests to the pool's endpoints over kept-alive HTTP/1.1 connections; does not retry,
 * save for a kept connection that was closed before the answer began, as every keep-alive client
 * must.
 *
 * <p>Lives on one event loop: call it there, and there it answers. A connection carries a request
 * at a time, so there are never more of them than requests in flight. Name look-ups, which block,
 * have a thread of their own. HTTP/1.1, because the engines behind the pool speak nothing else.
 *
 * <p>Netty and not java.net.http, by measurement, through {@link PoolClient} and {@link SingleCallExecutor}: 500-byte
 * prompts, the engine on the same two cores, JDK 17, rounds 4 and 5 of 5 (10,000 calls each; 4,000
 * at c=1), the lower of each; the machine was busy, so read the ratios:
 *
 * <pre>
 *                           processor time a call     p50
 *                           java.net.http   Netty     java.net.http   Netty
 * c=1, answer at once          358 us       212 us       0.28 ms      0.20 ms
 * c=64, answer at once         180 us        61 us       9.7 ms       4.5 ms
 * c=64, answer after 60 ms     207 us        87 us       69 ms        65 ms
 * </pre>
 *
 * What is left is system calls: a wake-up, a write and a read for each call.
 */
final class PoolHttpClient implements AutoCloseable {

    private static final int CONNECT_TIMEOUT_MS = 5_000;

    /** A way through a NAT may be gone after a minute of silence, and nobody says so. */
    private static final long IDLE_NS_MAX = TimeUnit.SECONDS.toNanos(30);

    private static final HttpDecoderConfig DECODER =
            new HttpDecoderConfig()
                    .setMaxHeaderSize(64 << 10)
                    .setMaxChunkSize(64 << 10)
                    .setValidateHeaders(false);

    private final EventLoop loop;
    private final List<Endpoint> endpoints;
    private final String authorization;
    private final long bytesMax;
    private final Bootstrap bootstrap;
    private final ChannelGroup open;
    private final ExecutorService lookUps =
            Executors.newSingleThreadExecutor(new DefaultThreadFactory("pool-call-dns", true));
    private boolean closed;

    /**
     * @param bytesMax of an answer
     * @throws SSLException when an address is https and this JVM has no TLS
     */
    PoolHttpClient(EventLoop loop, List<String> urls, String path, Optional<String> key, long bytesMax)
            throws SSLException {
        this.loop = loop;
        this.authorization = key.map(found -> "Bearer " + found).orElse(null);
        this.bytesMax = bytesMax;
        SslContext tls =
                urls.stream().anyMatch(url -> url.startsWith("https:"))
                        ? SslContextBuilder.forClient().build()
                        : null;
        this.endpoints = urls.stream().map(url -> Endpoint.of(url + path, tls)).toList();
        this.open = new DefaultChannelGroup(loop);
        this.bootstrap =
                new Bootstrap()
                        .group(loop)
                        .channel(NioSocketChannel.class)
                        .option(ChannelOption.TCP_NODELAY, true)
                        .option(ChannelOption.SO_KEEPALIVE, true)
                        .option(ChannelOption.CONNECT_TIMEOUT_MILLIS, CONNECT_TIMEOUT_MS)
                        .option(ChannelOption.ALLOCATOR, new Buffers());
    }

    /** A request on its way. */
    final class Exchange {
        private final Endpoint endpoint;
        private final byte[] body;
        private final Map<String, String> headers;
        private final Consumer<HttpReply> then;
        private HttpConnection connection;
        private boolean resent;
        private boolean over;

        private Exchange(
                Endpoint endpoint, byte[] body, Map<String, String> headers, Consumer<HttpReply> then) {
            this.endpoint = endpoint;
            this.body = body;
            this.headers = headers;
            this.then = then;
        }

        /** Closes the connection, so that the engine behind it can stop; nothing is told then. */
        void abort() {
            over = true;
            if (connection != null) {
                connection.close();
            }
        }

        void end(HttpReply reply) {
            if (!over && !closed) {
                over = true;
                then.accept(reply);
            }
        }

        /** The connection is gone without an answer. */
        void lost(Throwable cause, boolean keptAlive) {
            connection = null;
            if (keptAlive && !resent && !over && !closed) {
                resent = true; // it was closed while it was idle, and the news met our request
                connect(this);
                return;
            }
            end(HttpReply.broken(endpoint.url(), cause));
        }
    }

    /**
     * Sends a POST of JSON to the endpoint of this number; {@code then} is told what came of it,
     * once, and later than this returns.
     *
     * @throws IllegalArgumentException when a header cannot be sent
     */
    Exchange post(int url, byte[] body, Map<String, String> headers, Consumer<HttpReply> then) {
        Exchange exchange = new Exchange(endpoints.get(url), body, headers, then);
        FullHttpRequest request = request(exchange);
        HttpConnection kept = exchange.endpoint.kept();
        if (kept == null) {
            connect(exchange);
        } else {
            exchange.connection = kept;
            kept.send(exchange, request, true);
        }
        return exchange;
    }

    private FullHttpRequest request(Exchange exchange) {
        FullHttpRequest request =
                new DefaultFullHttpRequest(
                        HttpVersion.HTTP_1_1,
                        HttpMethod.POST,
                        exchange.endpoint.target(),
                        Unpooled.wrappedBuffer(exchange.body));
        request.headers()
                .set(HttpHeaderNames.HOST, exchange.endpoint.authority())
                .set(HttpHeaderNames.CONTENT_TYPE, "application/json")
                .set(HttpHeaderNames.ACCEPT, "application/json")
                .setInt(HttpHeaderNames.CONTENT_LENGTH, exchange.body.length);
        exchange.headers.forEach(request.headers()::set);
        if (authorization != null) {
            request.headers().set(HttpHeaderNames.AUTHORIZATION, authorization);
        }
        return request;
    }

    private void connect(Exchange exchange) {
        Endpoint endpoint = exchange.endpoint;
        Runnable lookUp =
                () -> {
                    InetSocketAddress at = new InetSocketAddress(endpoint.host(), endpoint.port());
                    PoolClient.quietly(() -> loop.execute(() -> connect(exchange, at)));
                };
        PoolClient.quietly(() -> lookUps.execute(lookUp));
    }

    private void connect(Exchange exchange, InetSocketAddress at) {
        if (exchange.over || closed) {
            return;
        }
        if (at.isUnresolved()) {
            Exception unknown = new UnknownHostException("unknown host");
            exchange.end(HttpReply.noConnection(exchange.endpoint.url(), unknown));
            return;
        }
        HttpConnection made = new HttpConnection(exchange.endpoint.idle(), bytesMax);
        exchange.connection = made;
        ChannelFuture connected =
                bootstrap.clone().handler(new Line(exchange.endpoint, made)).connect(at);
        made.on(connected.channel());
        open.add(connected.channel());
        connected.addListener(
                done -> {
                    if (!done.isSuccess()) {
                        exchange.end(HttpReply.noConnection(exchange.endpoint.url(), done.cause()));
                    } else if (!exchange.over) {
                        made.send(exchange, request(exchange), false);
                    }
                });
    }

    /**
     * Tells nothing any more and closes the connections. A loop's own shutdown is not relied on:
     * without a quiet period it may end before it closed its channels, and leave them open.
     */
    @Override
    public void close() {
        closed = true;
        open.close();
        lookUps.shutdownNow();
    }

    /** One address of the pool and its connections that wait for a request, the latest first. */
    private record Endpoint(
            String url,
            String target,
            String host,
            int port,
            SslContext tls,
            Deque<HttpConnection> idle) {

        static Endpoint of(String url, SslContext tls) {
            URI uri = URI.create(url);
            boolean secure = uri.getScheme().equals("https");
            int port = uri.getPort() < 0 ? (secure ? 443 : 80) : uri.getPort();
            String target =
                    uri.getRawPath() + (uri.getRawQuery() == null ? "" : "?" + uri.getRawQuery());
            return new Endpoint(
                    url, target, uri.getHost(), port, secure ? tls : null, new ArrayDeque<>());
        }

        String authority() {
            return host + ":" + port;
        }

        /** A connection that was used a moment ago, null for none. */
        HttpConnection kept() {
            HttpConnection latest = idle.poll();
            if (latest != null && latest.idleNs() > IDLE_NS_MAX) {
                idle.add(latest);
                List.copyOf(idle).forEach(HttpConnection::close); // the others are older still
                idle.clear();
                return null;
            }
            return latest;
        }
    }

    /** What stands between the socket and a {@link HttpConnection}. */
    private static final class Line extends ChannelInitializer<SocketChannel> {
        private final Endpoint endpoint;
        private final HttpConnection connection;

        Line(Endpoint endpoint, HttpConnection connection) {
            this.endpoint = endpoint;
            this.connection = connection;
        }

        @Override
        protected void initChannel(SocketChannel channel) {
            if (endpoint.tls() != null) {
                channel.pipeline()
                        .addLast(
                                endpoint.tls()
                                        .newHandler(
                                                channel.alloc(), endpoint.host(), endpoint.port()));
            }
            channel.pipeline().addLast(new HttpClientCodec(DECODER, false, false), connection);
        }
    }

    /**
     * Pooled memory for what is read, one arena as there is one thread. What is written stays on
     * the heap: a TaskManager's direct memory is scarce, and requests of megabytes would be copied
     * into it whole, all that are in flight.
     */
    private static final class Buffers extends PooledByteBufAllocator {
        Buffers() {
            super(true, 0, 1, 8192, 6, 0, 64, true);
        }

        @Override
        public boolean isDirectBufferPooled() {
            return false;
        }
    }
}
