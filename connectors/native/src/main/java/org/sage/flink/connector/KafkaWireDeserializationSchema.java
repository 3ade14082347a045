package org.sage.flink.connector;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Header;
import org.apache.flink.util.Collector;
import org.sage.flink.wire.CallResult;
import org.sage.flink.wire.WireRecord;

/**
 * Kafka records to wire records. Id and origin are {@code topic/partition/offset}, the value is the
 * raw bytes (nil for a tombstone), a header without a value becomes an empty one, and of several
 * headers with the same name the last one is kept. The header {@code sage-timestamp-ms} takes the
 * place of the timestamp (see {@link KafkaWireSerializationSchema}). Never throws on content. One record in, one out,
 * in order.
 */
public final class KafkaWireDeserializationSchema
        implements KafkaRecordDeserializationSchema<byte[]> {

    private static final long serialVersionUID = 1L;

    private static final Pattern TIMESTAMP = Pattern.compile("[1-9][0-9]{0,14}");

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<byte[]> out) {
        String id = record.topic() + '/' + record.partition() + '/' + record.offset();
        Map<String, byte[]> headers = new LinkedHashMap<>();
        for (Header header : record.headers()) {
            headers.put(header.key(), header.value() == null ? CallResult.NO_BODY : header.value());
        }
        // Kafka uses -1 for an unknown timestamp, a wire record uses 0.
        long timestampMs = Math.max(0, record.timestamp());
        byte[] digits = headers.remove(KafkaWireSerializationSchema.TIMESTAMP);
        if (digits != null) {
            String written = new String(digits, StandardCharsets.US_ASCII);
            timestampMs = TIMESTAMP.matcher(written).matches() ? Long.parseLong(written) : timestampMs;
        }
        out.collect(
                new WireRecord(id, record.value(), timestampMs, record.key(), headers, id)
                        .encode());
    }

    @Override
    public TypeInformation<byte[]> getProducedType() {
        return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    }
}
