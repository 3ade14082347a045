package org.sage.flink.testing;

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/** A real HTTP server with scripted responses, which records its requests. */
public final class FakePool implements AutoCloseable {

    private static final ObjectMapper JSON = new ObjectMapper();

    /** A request that arrived. */
    public record Request(String path, Headers headers, String body, long atMs) {

        public String header(String name) {
            return headers.getFirst(name);
        }

        public List<String> texts() {
            try {
                List<String> texts = new ArrayList<>();
                for (JsonNode text : JSON.readTree(body).path("input")) {
                    texts.add(text.asText());
                }
                return texts;
            } catch (IOException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    /** A response to send. */
    public record Response(int status, String body, Map<String, String> headers) {

        public Response(int status, String body) {
            this(status, body, Map.of());
        }
    }

    /** The response to the n-th request, counted from 0. */
    public interface Script {
        public Response respond(int n, Request request) throws Exception;
    }

    public final List<Request> requests = new CopyOnWriteArrayList<>();
    private final HttpServer server;
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final Script script;

    public FakePool(Script script) {
        this(0, script);
    }

    /**
     * @param port 0 for any free port
     */
    public FakePool(int port, Script script) {
        this.script = script;
        try {
            InetAddress loopback = InetAddress.getLoopbackAddress();
            server = HttpServer.create(new InetSocketAddress(loopback, port), 0);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        server.createContext("/", this::serve);
        server.setExecutor(threads);
        server.start();
    }

    public static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        }
    }

    public String url() {
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    private void serve(HttpExchange exchange) throws IOException {
        String body =
                new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        Request request =
                new Request(
                        exchange.getRequestURI().getPath(),
                        exchange.getRequestHeaders(),
                        body,
                        System.nanoTime() / 1_000_000);
        int n;
        synchronized (requests) {
            n = requests.size();
            requests.add(request);
        }
        try {
            Response response = script.respond(n, request);
            byte[] answer = response.body().getBytes(StandardCharsets.UTF_8);
            response.headers().forEach(exchange.getResponseHeaders()::set);
            exchange.sendResponseHeaders(response.status(), answer.length == 0 ? -1 : answer.length);
            exchange.getResponseBody().write(answer);
        } catch (Exception e) {
            // The connection closes without a response, as when an engine crashes.
        } finally {
            exchange.close();
        }
    }

    /** Embeddings of the texts, each (length, 1), in reverse order: placement is by index. */
    public static Response embeddings(List<String> texts) {
        List<String> items = new ArrayList<>();
        for (int i = texts.size() - 1; i >= 0; i--) {
            items.add(item(i, vector(texts.get(i).length(), 1f)));
        }
        return new Response(200, "{\"data\":[" + String.join(",", items) + "]}");
    }

    public static String item(int index, byte[] vector) {
        String embedding = Base64.getEncoder().encodeToString(vector);
        return "{\"index\":" + index + ",\"embedding\":\"" + embedding + "\"}";
    }

    public static byte[] vector(float... numbers) {
        ByteBuffer vector =
                ByteBuffer.allocate(numbers.length * 4).order(ByteOrder.LITTLE_ENDIAN);
        for (float number : numbers) {
            vector.putFloat(number);
        }
        return vector.array();
    }

    @Override
    public void close() {
        server.stop(0);
        threads.shutdownNow();
    }
}
