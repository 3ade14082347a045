package org.sage.flink.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import org.junit.jupiter.api.Test;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

class RecordChangeTest {

    /** A record whose value has these names, in this order, as fields with their place. */
    private static byte[] record(String... names) throws IOException {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packArrayHeader(9).packString("id").packMapHeader(names.length);
            for (int i = 0; i < names.length; i++) {
                packer.packString(names[i]).packInt(i);
            }
            packer.packLong(7).packNil().packMapHeader(0).packString("origin");
            packer.packString("upsert").packString("").packString("");
            return packer.toByteArray();
        }
    }

    private static String text(byte[] data) throws IOException {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data)) {
            return unpacker.unpackValue().toJson();
        }
    }

    @Test
    void aFieldIsAddedBehindTheOthersOrInThePlaceOfOneOfItsName() throws IOException {
        byte[] nine = {9};
        String rest = ",7,null,{},\"origin\",\"upsert\",\"\",\"\"]";

        assertEquals(
                "[\"id\",{\"x\":9}" + rest, text(RecordChange.withField(record(), "x", nine)));
        assertEquals(
                "[\"id\",{\"a\":0,\"b\":9,\"c\":2}" + rest,
                text(RecordChange.withField(record("a", "b", "c"), "b", nine)));
        String[] many = new String[40];
        for (int i = 0; i < many.length; i++) {
            many[i] = "field" + i;
        }
        String made = text(RecordChange.withField(record(many), "last", nine));
        assertEquals(true, made.contains("\"field39\":39,\"last\":9}" + rest));
    }
}
