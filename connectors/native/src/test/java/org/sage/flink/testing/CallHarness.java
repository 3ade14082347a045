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

/** A {@link PoolAsyncFunction} on Flink's operator harness: settings, questions in, envelopes out. */
public final class CallHarness {

    public static final String EMBED =
            "\"mode\":\"embed\",\"model\":\"minilm\",\"path\":\"/v1/embeddings\"";

    private static final String ORDERED = "\"ordered\":true";

    private CallHarness() {}

    /** An envelope, read; the answer's bytes as Latin-1. */
    public record Output(String carrier, int status, int attempts, String reason, String answer) {
        public byte[] bytes() {
            return answer.getBytes(StandardCharsets.ISO_8859_1);
        }
    }

    /** Settings with one address, and more of them as JSON fields. */
    public static String config(String url, String more) {
        return config(List.of(url), more);
    }

    public static String config(List<String> urls, String more) {
        String rest = more.isEmpty() ? "" : "," + more;
        return "{\"name\":\"step\",\"urls\":[\"" + String.join("\",\"", urls) + "\"]" + rest + "}";
    }

    /** The envelopes of these bodies; where unordered by carrier: c0, c1, ... */
    public static List<Output> ask(String config, String... bodies) throws Exception {
        byte[][] questions = new byte[bodies.length][];
        for (int i = 0; i < bodies.length; i++) {
            questions[i] = question("c" + i, "id" + i, bodies[i], Map.of());
        }
        return ask(config, questions);
    }

    public static List<Output> ask(String config, byte[]... questions) throws Exception {
        try (var operator = opened(config)) {
            for (byte[] question : questions) {
                operator.processElement(new StreamRecord<>(question));
            }
            operator.endInput();
            List<Output> reads = new ArrayList<>(reads(operator));
            if (!config.contains(ORDERED)) {
                reads.sort(
                        Comparator.comparingInt(r -> Integer.parseInt(r.carrier().substring(1))));
            }
            return reads;
        }
    }

    public static OneInputStreamOperatorTestHarness<byte[], byte[]> opened(String config)
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

    /** A question that has its id among its headers, as the Python side sends it. */
    public static byte[] question(String carrier, String id, String body, Map<String, String> more)
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

    public static List<Output> reads(OneInputStreamOperatorTestHarness<byte[], byte[]> operator)
            throws IOException {
        List<Output> reads = new ArrayList<>();
        for (byte[] envelope : operator.extractOutputValues()) {
            try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(envelope)) {
                assertEquals(5, unpacker.unpackArrayHeader());
                reads.add(
                        new Output(
                                latin(unpacker.readPayload(unpacker.unpackBinaryHeader())),
                                unpacker.unpackInt(),
                                unpacker.unpackInt(),
                                unpacker.unpackString(),
                                latin(unpacker.readPayload(unpacker.unpackBinaryHeader()))));
            }
        }
        return reads;
    }

    /** An address where nobody listens. */
    public static String nowhere() throws IOException {
        return "http://127.0.0.1:" + FakePool.freePort();
    }

    /** No answer before the test is over. */
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
