package org.sage.flink.connector;

import java.nio.charset.StandardCharsets;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.sage.flink.wire.WireRecord;

/**
 * Wire records to Kafka records of one topic. If that topic is empty, the header {@code sage-topic}
 * names the topic of each record; it is not written to Kafka. The key is the record's key, else its
 * id in UTF-8, so that a compacted topic keeps one row per id. The value must be bytes, text (as
 * UTF-8) or nil (a tombstone). Kafka sets the timestamp of a record without one.
 *
 * <p>Brokers refuse a timestamp more than an hour ahead of their clock, which would fail the job for
 * one file that is dated tomorrow. Such a timestamp is written as the header {@code sage-timestamp-ms},
 * which a source takes as the timestamp again.
 *
 * <p>Accepts upserts only: a topic has no rows of documents that a delete could remove.
 */
public final class KafkaWireSerializationSchema implements KafkaRecordSerializationSchema<byte[]> {

    private static final long serialVersionUID = 1L;

    /** The header that names the topic, for a sink without a fixed topic. */
    static final String TOPIC = "sage-topic";

    /** The header with a timestamp that brokers refuse, in decimal digits. */
    static final String TIMESTAMP = "sage-timestamp-ms";

    /** Half of what brokers allow by default, because clocks differ. */
    private static final long AHEAD_MS_MAX = 30 * 60_000L;

    private final String topic;

    public KafkaWireSerializationSchema(String topic) {
        this.topic = topic;
    }

    /**
     * The Kafka record of a wire record; Kafka's partitioner chooses the partition by key.
     *
     * @throws IllegalArgumentException on a delete, a value that is not yet encoded, no topic, or
     *     bytes that are not a wire record: the pipeline is wrong, and the job fails rather than
     *     lose the record
     */
    @Override
    public ProducerRecord<byte[], byte[]> serialize(
            byte[] element, KafkaSinkContext context, Long timestamp) {
        WireRecord record = WireRecord.decode(element);
        if (record.isDelete()) {
            throw new IllegalArgumentException(
                    "record '"
                            + record.id()
                            + "': a topic takes no deletes; put DropDeletes() before the sink");
        }
        byte[] key =
                record.key() != null ? record.key() : record.id().getBytes(StandardCharsets.UTF_8);
        boolean isAhead = record.timestampMs() > System.currentTimeMillis() + AHEAD_MS_MAX;
        Long timestampMs = record.timestampMs() > 0 && !isAhead ? record.timestampMs() : null;
        ProducerRecord<byte[], byte[]> out =
                new ProducerRecord<>(topicOf(record), null, timestampMs, key, record.value());
        record.headers().forEach(out.headers()::add);
        if (isAhead) {
            byte[] digits =
                    String.valueOf(record.timestampMs()).getBytes(StandardCharsets.US_ASCII);
            out.headers().remove(TIMESTAMP).add(TIMESTAMP, digits);
        }
        if (topic.isEmpty()) {
            out.headers().remove(TOPIC);
        }
        return out;
    }

    private String topicOf(WireRecord record) {
        if (!topic.isEmpty()) {
            return topic;
        }
        byte[] named = record.headers().get(TOPIC);
        if (named == null) {
            throw new IllegalArgumentException(
                    "record '" + record.id() + "': neither the sink nor its header " + TOPIC
                            + " names a topic");
        }
        return new String(named, StandardCharsets.UTF_8);
    }
}
