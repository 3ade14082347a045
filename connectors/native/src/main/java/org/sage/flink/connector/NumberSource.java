package org.sage.flink.connector;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiterStrategy;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.sage.flink.wire.WireRecord;

/**
 * Factory of sources that count: the record of number n has the id {@code name/0/n} and the value n
 * in digits. The next number is in the checkpoint, so a restart continues with it.
 */
public final class NumberSource {

    private NumberSource() {}

    /**
     * The numbers from 0.
     *
     * @param count how many; below 0 there is no end
     * @param perSecond how many a second, over all subtasks; at 0 as many as the job takes
     */
    public static DataGeneratorSource<byte[]> source(String name, long count, double perSecond) {
        return new DataGeneratorSource<>(
                number -> record(name + "/0/" + number, number),
                count < 0 ? Long.MAX_VALUE : count,
                perSecond > 0
                        ? RateLimiterStrategy.perSecond(perSecond)
                        : RateLimiterStrategy.noOp(),
                PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
    }

    /** A source that ends at once: Flink's own of an empty collection fails, again and again. */
    public static SingleOutputStreamOperator<byte[]> none(
            StreamExecutionEnvironment env, String name) {
        return env.fromData(new byte[0]).name(name).uid(name + ".input").filter(record -> false);
    }

    private static byte[] record(String id, long number) {
        byte[] digits = Long.toString(number).getBytes(StandardCharsets.US_ASCII);
        return new WireRecord(id, digits, 0, null, Map.of(), id).encode();
    }
}
