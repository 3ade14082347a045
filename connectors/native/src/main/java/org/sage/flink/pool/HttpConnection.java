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

/** A connection of {@link PoolHttpClient}: the request it carries, and that request's answer as it comes. */
final class HttpConnection extends SimpleChannelInboundHandler<HttpObject> {

    private static final int BODY_BYTES_FIRST = 4096;

    private final Deque<HttpConnection> idle;
    private final long bytesMax;
    private Channel channel;
    private ChannelFuture written;
    private PoolHttpClient.Exchange exchange;
    private boolean keptAlive;
    private long idleSinceNs;

    private HttpResponse head; // null until the answer begins
    private boolean interim;
    private byte[] body = CallResult.NO_BODY;
    private int length;

    /**
     * @param idle where it puts itself when it is free
     */
    HttpConnection(Deque<HttpConnection> idle, long bytesMax) {
        this.idle = idle;
        this.bytesMax = bytesMax;
    }

    void on(Channel opened) {
        channel = opened;
    }

    long idleNs() {
        return System.nanoTime() - idleSinceNs;
    }

    void send(PoolHttpClient.Exchange next, FullHttpRequest request, boolean again) {
        exchange = next;
        keptAlive = again;
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

    /** Ends it; the exchange it carries is not told. */
    void close() {
        exchange = null;
        channel.close();
    }

    @Override
    protected void channelRead0(ChannelHandlerContext context, HttpObject part) {
        if (exchange == null) {
            close(); // an answer to nothing, such as "you have been idle for too long"
        } else if (part.decoderResult().isFailure()) {
            fail(part.decoderResult().cause());
        } else {
            if (part instanceof HttpResponse response) {
                interim = response.status().codeClass() == HttpStatusClass.INFORMATIONAL;
                head = response;
            }
            if (part instanceof HttpContent content && !interim) {
                add(content.content());
                if (exchange != null && part instanceof LastHttpContent) {
                    finish();
                }
            }
        }
    }

    private void add(ByteBuf more) {
        int size = more.readableBytes();
        if (length + (long) size > bytesMax) {
            end(HttpReply.tooLarge(head.status().code(), bytesMax), false);
            return;
        }
        if (length + size > body.length) {
            int room = Math.max(Math.max(BODY_BYTES_FIRST, length + size), 2 * length);
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
        // An answer that came before the whole question leaves the rest of it in the pipe.
        end(reply, HttpUtil.isKeepAlive(head) && written.isDone());
    }

    private void end(HttpReply reply, boolean reusable) {
        PoolHttpClient.Exchange done = exchange;
        exchange = null;
        if (length > 64 << 10) {
            body = CallResult.NO_BODY; // an idle connection keeps no large memory
        }
        if (reusable && channel.isActive()) {
            idleSinceNs = System.nanoTime();
            idle.push(this);
        } else {
            channel.close();
        }
        done.end(reply);
    }

    private void fail(Throwable cause) {
        PoolHttpClient.Exchange lost = exchange;
        exchange = null;
        channel.close();
        if (lost != null) {
            lost.lost(cause, keptAlive && head == null);
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
