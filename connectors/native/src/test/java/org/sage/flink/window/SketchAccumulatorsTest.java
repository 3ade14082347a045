package org.sage.flink.window;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.Random;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

class SketchAccumulatorsTest {

    private static final int NUMBERS = 200_000;

    @Test
    void aSketchOfManyNumbersIsSmallAndItsQuantileNearTheRank() throws IOException {
        Accumulator exact = new QuantileAccumulator(0.99, false);
        Accumulator approximate = new QuantileAccumulator(0.99, true);
        Accumulator whole = new QuantileAccumulator(0.99, true);
        for (int number : shuffled(NUMBERS)) {
            exact.add(packed(number), 0);
            approximate.add(packed(number), 0);
            if (number % 2_000 == 0) { // as at each checkpoint
                whole.merge(restored(approximate, new QuantileAccumulator(0.99, true)));
                approximate = new QuantileAccumulator(0.99, true);
            }
        }
        whole.merge(approximate);

        int bytes = bytes(whole).length;
        double result = unpacker(whole).unpackDouble();
        report("quantile", bytes(exact).length, bytes);
        assertTrue(bytes < 20_000, "bytes: " + bytes);
        assertEquals(0.99, result / NUMBERS, 0.007); // twice what 99 of 100 are within
    }

    @Test
    void aQuantileOfFewNumbersIsExactAlsoWhereItMayBeApproximate() throws IOException {
        Accumulator one = new QuantileAccumulator(0.5, true);
        Accumulator other = new QuantileAccumulator(0.5, true);
        for (int number = 0; number < QuantileAccumulator.EXACT_MAX / 2; number++) {
            one.add(packed(2 * number), 0);
            other.add(packed(2 * number + 1), 0);
        }
        one.merge(restored(other, new QuantileAccumulator(0.5, true)));

        assertEquals(399.5, unpacker(one).unpackDouble());
    }

    @Test
    void aSketchOfManyValuesIsSmallAndItsCountNear() throws IOException {
        Accumulator exact = new OccurrenceAccumulator(0);
        Accumulator one = new DistinctSketchAccumulator();
        Accumulator other = new DistinctSketchAccumulator();
        for (int number : shuffled(NUMBERS)) {
            exact.add(packed(number), 0);
            (number % 3 == 0 ? one : other).add(packed(number), 0);
            other.add(packed(number / 2), 0);
        }
        one.merge(restored(other, new DistinctSketchAccumulator()));

        int bytes = bytes(one).length;
        report("distinct", bytes(exact).length, bytes);
        assertTrue(bytes < 2_200, "bytes: " + bytes);
        assertEquals(1.0, (double) unpacker(one).unpackLong() / NUMBERS, 0.033);
    }

    @Test
    void aSketchOfManyValuesHasTheMostFrequentOnes() throws IOException {
        Accumulator exact = new OccurrenceAccumulator(2);
        Accumulator one = new TopSketchAccumulator(2);
        Accumulator other = new TopSketchAccumulator(2);
        for (int number : shuffled(NUMBERS)) {
            int value = number % 10 == 0 ? -1 : number % 20 == 1 ? -2 : number;
            exact.add(packed(value), 0);
            (number % 3 == 0 ? one : other).add(packed(value), 0);
        }
        one.merge(restored(other, new TopSketchAccumulator(2)));

        int bytes = bytes(one).length;
        report("top", bytes(exact).length, bytes);
        assertTrue(bytes < 20_000, "bytes: " + bytes);
        MessageUnpacker result = unpacker(one);
        assertEquals(2, result.unpackArrayHeader());
        for (int value = -1; value >= -2; value--) {
            result.unpackMapHeader();
            assertEquals("value", result.unpackString());
            assertEquals(value, result.unpackInt());
            assertEquals("count", result.unpackString());
            double tooHigh = result.unpackLong() - NUMBERS / (value == -1 ? 10.0 : 20.0);
            assertTrue(tooHigh >= 0 && tooHigh <= 0.0035 * NUMBERS, "too high by " + tooHigh);
        }
    }

    private static int[] shuffled(int count) {
        Random random = new Random(7);
        int[] numbers = new int[count];
        for (int i = 0; i < count; i++) {
            int at = random.nextInt(i + 1);
            numbers[i] = numbers[at];
            numbers[at] = i;
        }
        return numbers;
    }

    private static byte[] packed(int number) throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packInt(number);
            return packer.toByteArray();
        }
    }

    private static MessageUnpacker unpacker(Accumulator accumulator) throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            accumulator.packResult(packer);
            return MessagePack.newDefaultUnpacker(packer.toByteArray());
        }
    }

    private static byte[] bytes(Accumulator accumulator) throws IOException {
        DataOutputSerializer out = new DataOutputSerializer(1_024);
        accumulator.write(out);
        return out.getCopyOfBuffer();
    }

    private static Accumulator restored(Accumulator accumulator, Accumulator empty)
            throws IOException {
        empty.read(new DataInputDeserializer(bytes(accumulator)));
        return empty;
    }

    private static void report(String aggregate, int exactBytes, int bytes) {
        System.out.printf("%s of %,d: %,d bytes, exact %,d%n", aggregate, NUMBERS, bytes, exactBytes);
    }
}
