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
 * <p>Accepts upserts only: a topic has no rows of documents that a delete could remove.
 */
public final class KafkaWireSerializationSchema implements KafkaRecordSerializationSchema<byte[]> {

    private static final long serialVersionUID = 1L;

    /** The header that names the topic, for a sink without a fixed topic. */
    static final String TOPIC = "sage-topic";

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
        Long timestampMs = record.timestampMs() > 0 ? record.timestampMs() : null;
        ProducerRecord<byte[], byte[]> out =
                new ProducerRecord<>(topicOf(record), null, timestampMs, key, record.value());
        record.headers().forEach(out.headers()::add);
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
