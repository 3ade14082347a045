package org.sage.flink.testing;

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A server on a bare socket, for what no HTTP server would say: it answers each request with the
 * same bytes, whatever they are, and sees when the client hangs up.
 */
public final class RawServer implements AutoCloseable {

    /** Never a word. */
    public static final String SILENCE = "";

    public final CountDownLatch asked = new CountDownLatch(1);
    public final CountDownLatch hungUp = new CountDownLatch(1);
    public final AtomicInteger connections = new AtomicInteger();
    private final ServerSocket server;
    private final String answer;
    private final boolean closes;

    public RawServer(String answer) throws IOException {
        this(answer, false);
    }

    /**
     * @param closes after an answer, without saying so in it
     */
    public RawServer(String answer, boolean closes) throws IOException {
        this.answer = answer;
        this.closes = closes;
        this.server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        start(this::accept);
    }

    public String url() {
        return "http://127.0.0.1:" + server.getLocalPort();
    }

    private void accept() {
        try {
            while (true) {
                Socket socket = server.accept();
                connections.incrementAndGet();
                start(() -> talk(socket));
            }
        } catch (IOException e) {
            // closed: the test is over
        }
    }

    private void talk(Socket socket) {
        try (socket) {
            byte[] buffer = new byte[1 << 16];
            InputStream in = socket.getInputStream();
            while (in.read(buffer) > 0) { // a small request comes in one piece
                asked.countDown();
                socket.getOutputStream().write(answer.getBytes(StandardCharsets.ISO_8859_1));
                if (closes) {
                    return;
                }
            }
        } catch (IOException e) {
            // reset: hung up as well
        } finally {
            hungUp.countDown();
        }
    }

    private static void start(Runnable what) {
        Thread thread = new Thread(what, "peer");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void close() throws IOException {
        server.close();
    }
}
