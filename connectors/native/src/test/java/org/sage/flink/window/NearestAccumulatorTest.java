package org.sage.flink.window;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.value.Value;
import org.sage.flink.testing.FakePool;

/** The nearest of a window, its state kept, merged and read back. */
class NearestAccumulatorTest {

    private static final Aggregates NEAREST =
            Aggregates.of(
                    "[{\"name\":\"n\",\"kind\":\"nearest\",\"field\":\"v\",\"query\":[0,2],"
                            + "\"k\":2,\"value\":\"id\"}]");

    private static Accumulator[] with(Accumulator[] accumulators, int value, float... vector)
            throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            byte[] bytes = FakePool.vector(vector);
            packer.packBinaryHeader(bytes.length).writePayload(bytes);
            accumulators[0].add(packer.toByteArray(), new byte[] {(byte) value}, 0);
        }
        return accumulators;
    }

    private static List<String> result(Accumulator[] accumulators) throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            accumulators[0].packResult(packer);
            List<String> found = new ArrayList<>();
            for (Value item :
                    MessagePack.newDefaultUnpacker(packer.toByteArray())
                            .unpackValue()
                            .asArrayValue()) {
                found.add(item.toString());
            }
            return found;
        }
    }

    @Test
    void theStateHoldsTheNearestOnlyAndIsReadBack() throws Exception {
        AccumulatorsSerializer serializer = new AccumulatorsSerializer(NEAREST);
        Accumulator[] one = NEAREST.accumulators();
        with(one, 3, 1, 1);
        with(one, 2, 0, 1);
        with(one, 1, 0, 5);
        Accumulator[] other = with(NEAREST.accumulators(), 4, 0, 1);
        other[0].add(null, new byte[] {7}, 0);

        Accumulator[] read = serializer.copy(one);
        String first = "{\"value\":1,\"similarity\":1.0}";
        assertEquals(List.of(first, "{\"value\":2,\"similarity\":1.0}"), result(read));

        Accumulator[] merged = NEAREST.accumulators();
        with(merged, 3, 1, 1);
        merged[0].merge(serializer.copy(other)[0]);
        assertEquals(
                List.of(
                        "{\"value\":4,\"similarity\":1.0}",
                        "{\"value\":3,\"similarity\":0.707107}"),
                result(merged));
    }
}
