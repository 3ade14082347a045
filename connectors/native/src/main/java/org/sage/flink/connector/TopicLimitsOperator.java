package org.sage.flink.connector;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.OutputTag;
import org.apache.flink.util.function.SerializableSupplier;
import org.sage.flink.wire.CounterDelta;
import org.sage.flink.wire.DeadLetterMessage;
import org.sage.flink.wire.WireRecord;

/**
 * Operator in front of a Kafka sink: a record that the topic would refuse becomes a dead letter, in the
 * side output {@code failed}. Behind this operator the refusal would fail the job, again at each attempt. The
 * refusals: a value that is not encoded, a delete, and a message that is larger than the topic's
 * {@code max.message.bytes}. A timestamp that the topic does not take moves to the header {@code
 * sage-timestamp-ms}.
 *
 * <p>A dead letter that is too large for its topic is forwarded without its value, and where that is
 * not enough without its key and headers.
 *
 * <p>The topic is asked for its limits when the task starts. Where they become smaller while it runs,
 * the job fails once, at the next record that is too large. Where smaller records share its batch, the
 * producer first tries to split the batch for {@code delivery.timeout.ms}, two minutes (KAFKA-8350).
 */
public final class TopicLimitsOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    /** Named as the side output of a Python stage. */
    static final OutputTag<byte[]> FAILED =
            new OutputTag<>("failed", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private final SerializableSupplier<TopicLimits> asked;
    private final String topic;
    private final String step;
    private final String job;
    private final String run;
    private final boolean deadLetters;
    private final KafkaWireSerializationSchema schema;

    private transient TopicLimits limits;

    TopicLimitsOperator(
            SerializableSupplier<TopicLimits> asked,
            String topic,
            String step,
            String job,
            String run,
            boolean deadLetters) {
        this.asked = asked;
        this.topic = topic;
        this.step = step;
        this.job = job;
        this.run = run;
        this.deadLetters = deadLetters;
        schema = new KafkaWireSerializationSchema(topic);
    }

    /**
     * The records of the stream that {@code topic} takes, and for each other one a {@link CounterDelta}
     * of {@code step}.
     *
     * @param properties as those of {@link KafkaConnector#source}
     * @param job whose dead letters they are, and {@code run} the Flink job
     * @param deadLetters whether the records are dead letters: they are cut and not refused
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in,
            String servers,
            Map<String, String> properties,
            String topic,
            String step,
            String job,
            String run,
            boolean deadLetters) {
        Properties client = new Properties();
        client.putAll(properties);
        client.setProperty("bootstrap.servers", servers);
        String name = step + ".limits";
        return in.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new TopicLimitsOperator(
                                () -> TopicLimits.of(client, topic),
                                topic,
                                step,
                                job,
                                run,
                                deadLetters))
                .uid(name);
    }

    @Override
    public void open() throws Exception {
        super.open();
        limits = asked.get();
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        String flaw;
        try {
            ProducerRecord<byte[], byte[]> message = schema.serialize(record, null, null);
            Long timestampMs = message.timestamp();
            if (timestampMs != null
                    && !limits.takesTimestamp(timestampMs, System.currentTimeMillis())) {
                element = element.replace(withTimestampHeader(WireRecord.decode(record)));
            }
            flaw = flaw(TopicLimits.bytes(message));
        } catch (IllegalArgumentException e) {
            flaw = e.getMessage();
        }
        if (flaw.isEmpty()) {
            output.collect(element);
        } else if (deadLetters) {
            output.collect(element.replace(cut(record, flaw)));
        } else {
            byte[] letter = DeadLetterMessage.of(record, step, flaw, 1, job, run);
            output.collect(FAILED, new StreamRecord<>(letter));
            Map<String, Long> delta = new LinkedHashMap<>();
            delta.put(step + ".read", 1L);
            delta.put(step + ".dead_lettered", 1L);
            output.collect(new StreamRecord<>(CounterDelta.encode(delta)));
        }
    }

    private String flaw(int bytes) {
        return bytes <= limits.bytesMax()
                ? ""
                : "the message has " + bytes + " bytes with its key and headers; topic '" + topic
                        + "' takes at most " + limits.bytesMax() + " (max.message.bytes)";
    }

    private byte[] cut(byte[] letter, String reason) {
        WireRecord message = WireRecord.decode(letter);
        byte[] withoutValue = DeadLetterMessage.withoutValue(message, reason);
        int bytes = TopicLimits.bytes(schema.serialize(withoutValue, null, null));
        return flaw(bytes).isEmpty()
                ? withoutValue
                : DeadLetterMessage.withoutContents(message, reason);
    }

    private static byte[] withTimestampHeader(WireRecord record) {
        Map<String, byte[]> headers = new LinkedHashMap<>(record.headers());
        headers.put(
                KafkaWireSerializationSchema.TIMESTAMP,
                String.valueOf(record.timestampMs())
                        .getBytes(StandardCharsets.US_ASCII));
        return new WireRecord(
                        record.id(), record.value(), 0, record.key(), headers, record.origin())
                .encode();
    }
}
