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
 * A server on a plain socket, for responses that an HTTP server would not send: it answers each
 * request with the same bytes and notices when the client closes the connection.
 */
public final class RawServer implements AutoCloseable {

    /** The answer of a server that does not respond. */
    public static final String SILENCE = "";

    public final CountDownLatch requestArrived = new CountDownLatch(1);
    public final CountDownLatch clientClosed = new CountDownLatch(1);
    public final AtomicInteger connections = new AtomicInteger();
    private final ServerSocket server;
    private final String answer;
    private final boolean closes;

    public RawServer(String answer) throws IOException {
        this(answer, false);
    }

    /**
     * @param closes the connection after each answer, without announcing it
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
            // closed, because the test is over
        }
    }

    private void talk(Socket socket) {
        try (socket) {
            byte[] buffer = new byte[1 << 16];
            InputStream in = socket.getInputStream();
            while (in.read(buffer) > 0) { // a small request arrives in one read
                requestArrived.countDown();
                socket.getOutputStream().write(answer.getBytes(StandardCharsets.ISO_8859_1));
                if (closes) {
                    return;
                }
            }
        } catch (IOException e) {
            // reset by the client
        } finally {
            clientClosed.countDown();
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
