package org.sage.flink.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.streaming.api.datastream.AsyncDataStream;
import org.apache.flink.streaming.api.operators.async.AsyncWaitOperatorFactory;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;
import org.sage.flink.call.PoolAsyncFunction;

/** A {@link PoolAsyncFunction} on Flink's operator harness: requests in, results out. */
public final class CallHarness {

    public static final String EMBED =
            "\"mode\":\"embed\",\"model\":\"minilm\",\"path\":\"/v1/embeddings\"";

    private static final String ORDERED = "\"ordered\":true";

    private CallHarness() {}

    /** A decoded call result; its body as Latin-1 text. */
    public record Output(String carrier, int status, int attempts, String reason, String body) {
        public byte[] bytes() {
            return body.getBytes(StandardCharsets.ISO_8859_1);
        }
    }

    /** Settings with one endpoint, and {@code more} as JSON fields. */
    public static String config(String url, String more) {
        return config(List.of(url), more);
    }

    public static String config(List<String> urls, String more) {
        String rest = more.isEmpty() ? "" : "," + more;
        return "{\"name\":\"step\",\"urls\":[\"" + String.join("\",\"", urls) + "\"]" + rest + "}";
    }

    /** The results of calls with these bodies; unordered ones are sorted by carrier: c0, c1, ... */
    public static List<Output> call(String config, String... bodies) throws Exception {
        byte[][] requests = new byte[bodies.length][];
        for (int i = 0; i < bodies.length; i++) {
            requests[i] = callRequest("c" + i, "id" + i, bodies[i], Map.of());
        }
        return call(config, requests);
    }

    public static List<Output> call(String config, byte[]... requests) throws Exception {
        try (var operator = openOperator(config)) {
            for (byte[] callRequest : requests) {
                operator.processElement(new StreamRecord<>(callRequest));
            }
            operator.endInput();
            List<Output> outputs = new ArrayList<>(outputs(operator));
            if (!config.contains(ORDERED)) {
                outputs.sort(
                        Comparator.comparingInt(r -> Integer.parseInt(r.carrier().substring(1))));
            }
            return outputs;
        }
    }

    public static OneInputStreamOperatorTestHarness<byte[], byte[]> openOperator(String config)
            throws Exception {
        var harness = harness(config);
        harness.open();
        return harness;
    }

    public static OneInputStreamOperatorTestHarness<byte[], byte[]> harness(String config)
            throws Exception {
        var mode =
                config.contains(ORDERED)
                        ? AsyncDataStream.OutputMode.ORDERED
                        : AsyncDataStream.OutputMode.UNORDERED;
        return new OneInputStreamOperatorTestHarness<>(
                new AsyncWaitOperatorFactory<>(new PoolAsyncFunction(config), 20_000, 64, mode),
                BytePrimitiveArraySerializer.INSTANCE);
    }

    /** The wire form of a request that has its id among its headers, as Python sends it. */
    public static byte[] callRequest(String carrier, String id, String body, Map<String, String> more)
            throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(4);
            packBytes(packer, carrier.getBytes(StandardCharsets.UTF_8));
            packer.packString(id);
            packBytes(packer, body.getBytes(StandardCharsets.UTF_8));
            packer.packMapHeader(2 + more.size());
            packer.packString("x-request-id").packString(id);
            packer.packString("idempotency-key").packString(id);
            for (Map.Entry<String, String> header : more.entrySet()) {
                packer.packString(header.getKey()).packString(header.getValue());
            }
            return packer.toByteArray();
        }
    }

    public static List<Output> outputs(OneInputStreamOperatorTestHarness<byte[], byte[]> operator)
            throws IOException {
        List<Output> outputs = new ArrayList<>();
        for (byte[] result : operator.extractOutputValues()) {
            try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(result)) {
                assertEquals(5, unpacker.unpackArrayHeader());
                outputs.add(
                        new Output(
                                latin(unpacker.readPayload(unpacker.unpackBinaryHeader())),
                                unpacker.unpackInt(),
                                unpacker.unpackInt(),
                                unpacker.unpackString(),
                                latin(unpacker.readPayload(unpacker.unpackBinaryHeader()))));
            }
        }
        return outputs;
    }

    /** An address without a server. */
    public static String unusedUrl() throws IOException {
        return "http://127.0.0.1:" + FakePool.freePort();
    }

    /** Does not respond before the test is over. */
    public static FakePool.Response hang(CountDownLatch never) throws InterruptedException {
        never.await(20, TimeUnit.SECONDS);
        throw new IllegalStateException("the test is over");
    }

    public static void packBytes(MessageBufferPacker packer, byte[] bytes) throws IOException {
        packer.packBinaryHeader(bytes.length).writePayload(bytes);
    }

    private static String latin(byte[] bytes) {
        return new String(bytes, StandardCharsets.ISO_8859_1);
    }
}
