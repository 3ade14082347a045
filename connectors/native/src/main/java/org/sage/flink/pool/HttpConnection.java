package org.sage.flink.pool;

import java.nio.channels.ClosedChannelException;
import java.util.Arrays;
import java.util.Deque;
import org.apache.flink.shaded.netty4.io.netty.buffer.ByteBuf;
import org.apache.flink.shaded.netty4.io.netty.channel.Channel;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelFuture;
import org.apache.flink.shaded.netty4.io.netty.channel.ChannelHandlerContext;
import org.apache.flink.shaded.netty4.io.netty.channel.SimpleChannelInboundHandler;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.FullHttpRequest;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpContent;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpObject;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpResponse;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpStatusClass;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.HttpUtil;
import org.apache.flink.shaded.netty4.io.netty.handler.codec.http.LastHttpContent;
import org.sage.flink.wire.CallResult;

/**
 * A keep-alive connection of {@link PoolHttpClient}. It carries one exchange at a time and collects
 * the response of that exchange.
 */
final class HttpConnection extends SimpleChannelInboundHandler<HttpObject> {

    private static final int FIRST_BODY_BYTES = 4096;
    private static final int KEPT_BODY_BYTES_MAX = 64 << 10;

    private final Deque<HttpConnection> idle;
    private final long bytesMax;
    private Channel channel;
    private ChannelFuture written;
    private PoolHttpClient.Exchange exchange;
    private boolean reused;
    private long idleSinceNs;

    private HttpResponse head; // null until the response starts
    private boolean interim;
    private byte[] body = CallResult.NO_BODY;
    private int length;

    /**
     * @param idle the deque that this connection adds itself to when it is free
     */
    HttpConnection(Deque<HttpConnection> idle, long bytesMax) {
        this.idle = idle;
        this.bytesMax = bytesMax;
    }

    void attach(Channel opened) {
        channel = opened;
    }

    long idleNs() {
        return System.nanoTime() - idleSinceNs;
    }

    /**
     * @param keptAlive whether this connection has carried another exchange before
     */
    void send(PoolHttpClient.Exchange next, FullHttpRequest request, boolean keptAlive) {
        exchange = next;
        reused = keptAlive;
        head = null;
        length = 0;
        written = channel.writeAndFlush(request);
        written.addListener(
                done -> {
                    if (!done.isSuccess()) {
                        fail(done.cause());
                    }
                });
    }

    /** Closes the channel without completing the exchange. */
    void close() {
        exchange = null;
        channel.close();
    }

    @Override
    protected void channelRead0(ChannelHandlerContext context, HttpObject part) {
        if (exchange == null) {
            close(); // a response without a request, such as "idle for too long"
        } else if (part.decoderResult().isFailure()) {
            fail(part.decoderResult().cause());
        } else {
            if (part instanceof HttpResponse response) {
                interim = response.status().codeClass() == HttpStatusClass.INFORMATIONAL;
                head = response;
            }
            if (part instanceof HttpContent content && !interim) {
                append(content.content());
                if (exchange != null && part instanceof LastHttpContent) {
                    finish();
                }
            }
        }
    }

    private void append(ByteBuf more) {
        int size = more.readableBytes();
        if (length + (long) size > bytesMax) {
            complete(HttpReply.tooLarge(head.status().code(), bytesMax), false);
            return;
        }
        if (length + size > body.length) {
            int room = Math.max(Math.max(FIRST_BODY_BYTES, length + size), 2 * length);
            body = Arrays.copyOf(body, room);
        }
        more.readBytes(body, length, size);
        length += size;
    }

    private void finish() {
        HttpReply reply =
                HttpReply.of(
                        head.status().code(),
                        head.headers().get("Retry-After", ""),
                        Arrays.copyOf(body, length));
        // A response that arrives before the request is fully written leaves the rest of the
        // request in the channel: such a connection is not reusable.
        complete(reply, HttpUtil.isKeepAlive(head) && written.isDone());
    }

    private void complete(HttpReply reply, boolean reusable) {
        PoolHttpClient.Exchange completed = exchange;
        exchange = null;
        if (length > KEPT_BODY_BYTES_MAX) {
            body = CallResult.NO_BODY; // an idle connection must not hold a large buffer
        }
        if (reusable && channel.isActive()) {
            idleSinceNs = System.nanoTime();
            idle.push(this);
        } else {
            channel.close();
        }
        completed.complete(reply);
    }

    private void fail(Throwable cause) {
        PoolHttpClient.Exchange interrupted = exchange;
        exchange = null;
        channel.close();
        if (interrupted != null) {
            interrupted.connectionLost(cause, reused && head == null);
        }
    }

    @Override
    public void channelInactive(ChannelHandlerContext context) {
        idle.remove(this);
        fail(new ClosedChannelException());
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
        fail(cause);
    }
}
