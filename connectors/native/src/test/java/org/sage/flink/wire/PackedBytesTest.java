package org.sage.flink.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.math.BigInteger;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;

/** The own reader and writer of MessagePack against those of its library. */
class PackedBytesTest {

    private static final int VALUES = 2_000;

    @ParameterizedTest
    @ValueSource(
            longs = {
                0, 1, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_295L, 4_294_967_296L,
                Long.MAX_VALUE, -1, -32, -33, -128, -129, -32_768, -32_769, -2_147_483_648L,
                -2_147_483_649L, Long.MIN_VALUE
            })
    void aNumberHasTheBytesOfTheLibrary(long number) throws IOException {
        PackedWriter writer = new PackedWriter(0);
        writer.number(number);
        byte[] packed = writer.toByteArray();
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packLong(number);
            assertArrayEquals(packer.toByteArray(), packed);
        }
        assertEquals(number, new PackedReader(packed).wholeNumber());
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 15, 16, 255, 256, 65_535, 65_536})
    void sizesThatAreKnownAtTheEndHaveTheBytesOfTheLibrary(int size) throws IOException {
        PackedWriter writer = new PackedWriter(0);
        int from = writer.open();
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(size);
            for (int i = 0; i < size; i++) {
                writer.bool(true);
                packer.packBoolean(true);
            }
            writer.closeArray(from, size);
            assertArrayEquals(packer.toByteArray(), writer.toByteArray());
        }
        String text = "é".repeat(size);
        byte[] packed = new PackedWriter(0).string(text).bytes(new byte[size]).toByteArray();
        PackedReader reader = new PackedReader(packed);
        assertEquals(text, reader.string());
        assertEquals(size, reader.bytes().length);
    }

    @Test
    void anyValueIsSkippedWhole() throws IOException {
        Random random = new Random(1);
        for (int i = 0; i < VALUES; i++) {
            try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
                pack(packer, random, 0);
                byte[] packed = packer.toByteArray();
                PackedReader reader = new PackedReader(packed);
                reader.skip();
                assertEquals(packed.length, reader.position());
                byte[] cut = Arrays.copyOf(packed, random.nextInt(packed.length));
                assertThrows(PackedReader.Malformed.class, new PackedReader(cut)::skip);
            }
        }
    }

    @Test
    void aSizeBeyondTheBytesIsRefusedWithoutTheMemoryForIt() {
        byte[] lies = {(byte) 0xdd, 0x7f, (byte) 0xff, (byte) 0xff, (byte) 0xff, 1};
        assertThrows(PackedReader.Malformed.class, new PackedReader(lies)::skip);
        byte[] negative = {(byte) 0xc6, (byte) 0xff, (byte) 0xff, (byte) 0xff, (byte) 0xff, 1};
        assertThrows(PackedReader.Malformed.class, new PackedReader(negative)::skip);
        assertThrows(PackedReader.Malformed.class, new PackedReader(negative)::bytes);
    }

    private static void pack(MessageBufferPacker packer, Random random, int depth)
            throws IOException {
        int size = random.nextInt(random.nextInt(10) == 0 ? 300 : 5);
        switch (random.nextInt(depth < 4 ? 11 : 9)) {
            case 0 -> packer.packNil();
            case 1 -> packer.packBoolean(random.nextBoolean());
            case 2 -> packer.packLong(random.nextLong() >> random.nextInt(64));
            case 3 -> packer.packDouble(random.nextDouble());
            case 4 -> packer.packFloat(random.nextFloat());
            case 5 -> packer.packString("x".repeat(size));
            case 6 -> packer.packBinaryHeader(size).writePayload(new byte[size]);
            case 7 -> packer.packExtensionTypeHeader((byte) 3, size).writePayload(new byte[size]);
            case 8 -> packer.packBigInteger(BigInteger.TWO.pow(64).subtract(BigInteger.ONE));
            case 9 -> {
                packer.packArrayHeader(Math.min(size, 20));
                for (int i = 0; i < Math.min(size, 20); i++) {
                    pack(packer, random, depth + 1);
                }
            }
            default -> {
                packer.packMapHeader(Math.min(size, 20));
                for (int i = 0; i < 2 * Math.min(size, 20); i++) {
                    pack(packer, random, depth + 1);
                }
            }
        }
    }
}
