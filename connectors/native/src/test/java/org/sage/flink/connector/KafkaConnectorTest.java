package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.flink.api.common.functions.util.ListCollector;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Headers;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.record.TimestampType;
import org.junit.jupiter.api.Test;
import org.sage.flink.wire.WireRecord;

class KafkaConnectorTest {

    @Test
    void aKafkaRecordBecomesAWireRecord() {
        RecordHeaders headers = new RecordHeaders();
        headers.add("tenant", "a".getBytes()).add("tenant", "b".getBytes()).add("flag", null);

        WireRecord read = read("key".getBytes(), "value".getBytes(), 1234, headers);

        assertEquals("docs/3/42", read.id());
        assertEquals("docs/3/42", read.origin());
        assertArrayEquals("value".getBytes(), read.value());
        assertEquals(1234, read.timestampMs());
        assertArrayEquals("key".getBytes(), read.key());
        assertArrayEquals("b".getBytes(), read.headers().get("tenant"));
        assertArrayEquals(new byte[0], read.headers().get("flag"));
    }

    @Test
    void aTombstoneWithoutKeyOrTimestampIsDecoded() {
        WireRecord read = read(null, null, ConsumerRecord.NO_TIMESTAMP, new RecordHeaders());

        assertNull(read.value());
        assertNull(read.key());
        assertEquals(0, read.timestampMs());
    }

    @Test
    void aWireRecordBecomesAKafkaRecord() {
        ProducerRecord<byte[], byte[]> out =
                write(
                        new WireRecord(
                                "i", "v".getBytes(), 7, "k".getBytes(), Map.of("h", new byte[1]), "o"));

        assertEquals("out", out.topic());
        assertArrayEquals("k".getBytes(), out.key());
        assertArrayEquals("v".getBytes(), out.value());
        assertEquals(7L, out.timestamp());
        assertArrayEquals(new byte[1], out.headers().lastHeader("h").value());
    }

    @Test
    void aTimestampThatBrokersRefuseTravelsAsAHeader() {
        long tomorrowMs = System.currentTimeMillis() + 86_400_000;
        ProducerRecord<byte[], byte[]> out =
                write(new WireRecord("i", null, tomorrowMs, null, Map.of("h", new byte[1]), "o"));

        assertNull(out.timestamp());
        WireRecord read = read(null, null, 1234, out.headers());
        assertEquals(tomorrowMs, read.timestampMs());
        assertEquals(java.util.Set.of("h"), read.headers().keySet());
    }

    @Test
    void aTimestampHeaderThatIsNoTimeIsIgnored() {
        for (String odd : new String[] {"", "-1", "soon", "9".repeat(40)}) {
            RecordHeaders headers = new RecordHeaders();
            headers.add(KafkaWireSerializationSchema.TIMESTAMP, odd.getBytes());

            assertEquals(1234, read(null, null, 1234, headers).timestampMs());
        }
    }

    @Test
    void withoutAKeyTheIdIsTheKeyAndNilIsATombstone() {
        ProducerRecord<byte[], byte[]> out =
                write(new WireRecord("né", null, 0, null, Map.of(), ""));

        assertArrayEquals("né".getBytes(java.nio.charset.StandardCharsets.UTF_8), out.key());
        assertNull(out.value());
        assertNull(out.timestamp());
    }

    @Test
    void aDeleteFailsTheJobRatherThanBecomeAMessage() {
        WireRecord delete =
                new WireRecord("r", null, 0, null, Map.of(), "o", "delete", "a", "v2");

        Exception error = assertThrows(IllegalArgumentException.class, () -> write(delete));

        assertEquals(
                "record 'r': a topic takes no deletes; put DropDeletes() before the sink",
                error.getMessage());
    }

    @Test
    void aSinkWithoutATopicUsesTheTopicHeaderOfTheRecord() throws Exception {
        WireRecord record = new WireRecord("i", null, 0, null, Map.of("h", new byte[1]), "");
        byte[] addressed =
                new EndOfInputBufferOperator.TopicHeaderFunction("there").map(record.encode());

        ProducerRecord<byte[], byte[]> out =
                new KafkaWireSerializationSchema("").serialize(addressed, null, null);

        assertEquals("there", out.topic());
        assertEquals(1, out.headers().toArray().length);
        assertThrows(
                IllegalArgumentException.class,
                () -> new KafkaWireSerializationSchema("").serialize(record.encode(), null, null));
    }

    @Test
    void addressingADeleteToATopicKeepsItsKind() throws Exception {
        WireRecord delete =
                new WireRecord("i", null, 0, null, Map.of(), "", "delete", "document", "v2");

        byte[] addressed =
                new EndOfInputBufferOperator.TopicHeaderFunction("there").map(delete.encode());

        assertThrows(
                IllegalArgumentException.class,
                () -> new KafkaWireSerializationSchema("").serialize(addressed, null, null));
    }

    @Test
    void sourcesAndSinksAreBuiltFromNames() {
        assertNotNull(KafkaConnector.source("localhost:1", "a,b", "g", "committed", true, Map.of()));
        assertNotNull(KafkaConnector.sink("localhost:1", "t", "exactly_once", "p", 900_000, Map.of()));
        assertThrows(
                IllegalArgumentException.class,
                () -> KafkaConnector.source("localhost:1", "a", "g", "newest", false, Map.of()));
        assertThrows(
                IllegalArgumentException.class,
                () -> KafkaConnector.sink("localhost:1", "t", "once", "p", 900_000, Map.of()));
    }

    private static WireRecord read(byte[] key, byte[] value, long timestampMs, Headers headers) {
        List<byte[]> out = new ArrayList<>();
        new KafkaWireDeserializationSchema()
                .deserialize(
                        new ConsumerRecord<>(
                                "docs",
                                3,
                                42,
                                timestampMs,
                                TimestampType.CREATE_TIME,
                                0,
                                0,
                                key,
                                value,
                                headers,
                                Optional.empty()),
                        new ListCollector<>(out));
        return WireRecord.decode(out.get(0));
    }

    private static ProducerRecord<byte[], byte[]> write(WireRecord record) {
        return new KafkaWireSerializationSchema("out").serialize(record.encode(), null, null);
    }
}
