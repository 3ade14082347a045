package org.sage.flink.connector;

import java.util.Map;
import java.util.Properties;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.OffsetResetStrategy;

/** Factory of Kafka sources and sinks of wire records. */
public final class KafkaConnector {

    /** Limit on a record, for sources and sinks; the broker's own limit may be lower. */
    private static final String BYTES_MAX = String.valueOf(32 << 20);

    private KafkaConnector() {}

    /**
     * A source of the committed records of a topic (several: separated by commas), in order within
     * a partition, exactly once in state; offsets are committed to the group at each checkpoint.
     *
     * @param start {@code earliest}, {@code latest}, or {@code committed} (the group's offsets,
     *     or earliest if it has no offsets); a restored job continues from its checkpoint instead
     * @param bounded end at the offsets that are the latest when the job starts
     * @param properties of Kafka's client, over the defaults here; secrets are references for {@link
     *     SecretProvider}, because everyone with access to the cluster can read the job
     * @throws IllegalArgumentException on any other start
     */
    public static KafkaSource<byte[]> source(
            String servers,
            String topic,
            String group,
            String start,
            boolean bounded,
            Map<String, String> properties) {
        Properties consumer = new Properties();
        consumer.setProperty("max.partition.fetch.bytes", BYTES_MAX);
        consumer.putAll(properties);
        consumer.setProperty("isolation.level", "read_committed");
        KafkaSourceBuilder<byte[]> builder =
                KafkaSource.<byte[]>builder()
                        .setProperties(consumer)
                        .setBootstrapServers(servers)
                        .setTopics(topic.split(","))
                        .setGroupId(group)
                        .setStartingOffsets(offsets(start))
                        .setDeserializer(new KafkaWireDeserializationSchema());
        return bounded ? builder.setBounded(OffsetsInitializer.latest()).build() : builder.build();
    }

    /**
     * A sink into a topic.
     *
     * @param topic if empty, each record's header {@code sage-topic} names its topic
     * @param guarantee {@code exactly_once} (for readers of committed records; visible at the next
     *     checkpoint) or {@code at_least_once} (visible immediately, may be duplicated by a restart)
     * @param transactionalIdPrefix unique to this sink among all jobs on the cluster, and the same
     *     after a restart; otherwise transactions of a failed run stay open until they time out
     * @param transactionTimeoutMs at most the broker's {@code transaction.max.timeout.ms}; a
     *     transaction that is older is aborted, whatever checkpoint it belongs to
     * @param properties as those of {@link #source}
     * @throws IllegalArgumentException on any other guarantee
     */
    public static KafkaSink<byte[]> sink(
            String servers,
            String topic,
            String guarantee,
            String transactionalIdPrefix,
            int transactionTimeoutMs,
            Map<String, String> properties) {
        Properties producer = new Properties();
        producer.setProperty("max.request.size", BYTES_MAX);
        // Room for more than one request of the largest size, or the producer blocks at each of them.
        producer.setProperty("buffer.memory", String.valueOf(64 << 20));
        producer.putAll(properties);
        producer.setProperty("transaction.timeout.ms", String.valueOf(transactionTimeoutMs));
        KafkaSinkBuilder<byte[]> builder =
                KafkaSink.<byte[]>builder()
                        .setBootstrapServers(servers)
                        .setKafkaProducerConfig(producer)
                        .setDeliveryGuarantee(guarantee(guarantee))
                        .setRecordSerializer(new KafkaWireSerializationSchema(topic));
        return builder.setTransactionalIdPrefix(transactionalIdPrefix).build();
    }

    private static OffsetsInitializer offsets(String start) {
        return switch (start) {
            case "earliest" -> OffsetsInitializer.earliest();
            case "latest" -> OffsetsInitializer.latest();
            case "committed" -> OffsetsInitializer.committedOffsets(OffsetResetStrategy.EARLIEST);
            default ->
                    throw new IllegalArgumentException(
                            "kafka source: start must be earliest, latest or committed, got '"
                                    + start
                                    + "'");
        };
    }

    private static DeliveryGuarantee guarantee(String name) {
        return switch (name) {
            case "exactly_once" -> DeliveryGuarantee.EXACTLY_ONCE;
            case "at_least_once" -> DeliveryGuarantee.AT_LEAST_ONCE;
            default ->
                    throw new IllegalArgumentException(
                            "kafka sink: guarantee must be exactly_once or at_least_once, got '"
                                    + name
                                    + "'");
        };
    }
}
