package org.sage.flink.connector;

import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.Admin;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.Config;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.config.ConfigResource;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Header;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.record.AbstractRecords;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.record.CompressionType;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.record.RecordBatch;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What a topic takes.
 *
 * @param bytesMax limit on a message with its key, headers and framing
 * @param behindMsMax how far a timestamp may be behind the broker's clock
 * @param aheadMsMax how far a timestamp may be ahead of it
 */
record TopicLimits(long bytesMax, long behindMsMax, long aheadMsMax) {

    private static final Logger LOG = LoggerFactory.getLogger(TopicLimits.class);

    private static final String BYTES = "max.message.bytes";
    private static final String BEHIND = "message.timestamp.before.max.ms";
    private static final String AHEAD = "message.timestamp.after.max.ms";
    private static final long ASK_S_MAX = 20;

    /** Without knowledge of the topic: what the sinks of sage send, and what brokers usually take. */
    static final TopicLimits USUAL =
            new TopicLimits(KafkaConnector.RECORD_BYTES_MAX, Long.MAX_VALUE, 3_600_000);

    /** The limits of a topic, {@link #USUAL} where the brokers do not say. */
    static TopicLimits of(Properties client, String topic) {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(client)) {
            Map<ConfigResource, Config> found =
                    admin.describeConfigs(List.of(resource)).all().get(ASK_S_MAX, TimeUnit.SECONDS);
            Config config = found.get(resource);
            long bytes = Math.min(USUAL.bytesMax, number(config, BYTES, USUAL.bytesMax));
            return new TopicLimits(
                    bytes,
                    number(config, BEHIND, USUAL.behindMsMax),
                    number(config, AHEAD, USUAL.aheadMsMax));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return USUAL;
        } catch (Exception e) {
            LOG.warn("The limits of topic '{}' are unknown; the usual ones are assumed", topic, e);
            return USUAL;
        }
    }

    private static long number(Config config, String name, long otherwise) {
        return config.get(name) == null ? otherwise : Long.parseLong(config.get(name).value());
    }

    /** Whether the topic takes a message with this timestamp; half of the limit ahead, as clocks differ. */
    boolean takesTimestamp(long timestampMs, long nowMs) {
        return timestampMs >= nowMs - behindMsMax && timestampMs <= nowMs + aheadMsMax / 2;
    }

    /** The size of a message as the producer and the broker compare it with the limit, or a bit more. */
    static int bytes(ProducerRecord<byte[], byte[]> message) {
        Header[] headers = message.headers().toArray();
        return AbstractRecords.estimateSizeInBytesUpperBound(
                RecordBatch.CURRENT_MAGIC_VALUE,
                CompressionType.NONE,
                message.key(),
                message.value(),
                headers);
    }
}
