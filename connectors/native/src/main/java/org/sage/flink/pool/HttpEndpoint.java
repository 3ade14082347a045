package org.sage.flink.pool;

import java.net.URI;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelInitializer;
import org.apache.flink.shaded.netty4.io.netty.channel.socket.SocketChannel;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpClientCodec;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpDecoderConfig;
import org.apache.flink.shaded.netty4.io.netty.handler.ssl.SslContext;

/** One address of the pool, with its idle connections, the most recently used first. */
record HttpEndpoint(
        String url,
        String target,
        String host,
        int port,
        SslContext tls,
        Deque<HttpConnection> idle) {

    /** A NAT may drop a mapping after a minute without traffic, and neither side is notified. */
    private static final long IDLE_NS_MAX = TimeUnit.SECONDS.toNanos(30);

    private static final HttpDecoderConfig DECODER =
            new HttpDecoderConfig()
                    .setMaxHeaderSize(64 << 10)
                    .setMaxChunkSize(64 << 10)
                    .setValidateHeaders(false);

    static HttpEndpoint of(String url, SslContext tls) {
        URI uri = URI.create(url);
        boolean secure = uri.getScheme().equals("https");
        int port = uri.getPort() < 0 ? (secure ? 443 : 80) : uri.getPort();
        String target =
                uri.getRawPath() + (uri.getRawQuery() == null ? "" : "?" + uri.getRawQuery());
        return new HttpEndpoint(
                url, target, uri.getHost(), port, secure ? tls : null, new ArrayDeque<>());
    }

    String authority() {
        return host + ":" + port;
    }

    /** An idle connection that was used recently, or null. */
    HttpConnection takeIdle() {
        HttpConnection latest = idle.poll();
        if (latest != null && latest.idleNs() > IDLE_NS_MAX) {
            idle.add(latest);
            List.copyOf(idle).forEach(HttpConnection::close); // the others are older still
            idle.clear();
            return null;
        }
        return latest;
    }

    /** The handlers between the socket and {@code connection}: TLS where needed, HTTP. */
    ChannelInitializer<SocketChannel> initializer(HttpConnection connection) {
        return new ChannelInitializer<>() {
            @Override
            protected void initChannel(SocketChannel channel) {
                if (tls != null) {
                    channel.pipeline().addLast(tls.newHandler(channel.alloc(), host, port));
                }
                channel.pipeline().addLast(new HttpClientCodec(DECODER, false, false), connection);
            }
        };
    }
}
