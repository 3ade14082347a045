package org.sage.flink.call;

import java.util.Arrays;
import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.msgpack.value.ValueType;
import org.sage.flink.connector.JsonDecoder;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedReader;
import org.sage.flink.wire.PackedWriter;
import org.sage.flink.wire.RecordChange;

/**
 * Operator that turns the results of a chat call into records: the record that was asked for, with
 * the answer's text, the reason it ended and its usage in fields of its value. The Python twin is
 * {@code Chat.answer} in {@code sage_flink/inference/chat.py}.
 */
public final class CompletionAnswerOperator extends AnswerOperator {

    private static final long serialVersionUID = 1L;

    private static final byte[] NIL = {(byte) 0xc0};
    private static final byte[] NO_TEXT = {(byte) 0xa0};
    private static final byte[] NO_USAGE = {(byte) 0x80};
    /** null, false, 0, and a text, list or map without content. */
    private static final List<Integer> EMPTY = List.of(0xc0, 0xc2, 0x00, 0xa0, 0x90, 0x80);

    private final String model;
    private final String field;

    private CompletionAnswerOperator(FailedRecords failed, String model, String field) {
        super(failed);
        this.model = model;
        this.field = field;
    }

    /**
     * Appends this operator to the results of the call {@code step}.
     *
     * @param model for messages
     * @param field of the value, for the text
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> results,
            String step,
            String job,
            String run,
            String model,
            String field) {
        FailedRecords failed = new FailedRecords(step, job, run);
        return new CompletionAnswerOperator(failed, model, field).wire(results);
    }

    @Override
    protected byte[] answer(byte[] record, byte[] body) {
        byte[] text;
        byte[] reason;
        byte[] usage;
        try {
            PackedWriter writer = new PackedWriter(body.length);
            JsonDecoder.decode(body, writer);
            byte[] reply = writer.toByteArray();
            byte[] choice = first(required(reply, "choices"));
            text = required(required(choice, "message"), "content");
            reason = find(choice, "finish_reason");
            usage = find(reply, "usage");
        } catch (IllegalArgumentException e) {
            String flaw = model + ": the answer is not a chat completion: " + e.getMessage();
            throw new IllegalArgumentException(flaw, e);
        }
        byte[] answered = RecordChange.withField(record, field, isEmpty(text) ? NO_TEXT : text);
        answered = RecordChange.withField(answered, "finish_reason", reason == null ? NIL : reason);
        return RecordChange.withField(answered, "usage", isEmpty(usage) ? NO_USAGE : usage);
    }

    private static boolean isEmpty(byte[] packed) {
        return packed == null || EMPTY.contains(packed[0] & 0xff);
    }

    private static byte[] required(byte[] packed, String name) {
        byte[] found = find(packed, name);
        if (found == null) {
            throw new IllegalArgumentException("'" + name + "'");
        }
        return found;
    }

    /** The value of this name in the map; null where there is none. */
    private static byte[] find(byte[] packed, String name) {
        PackedReader reader = new PackedReader(packed);
        for (int left = reader.mapHeader(); left > 0; left--) {
            boolean isName = name.equals(reader.string());
            int from = reader.position();
            reader.skip();
            if (isName) {
                return Arrays.copyOfRange(packed, from, reader.position());
            }
        }
        return null;
    }

    private static byte[] first(byte[] packed) {
        PackedReader reader = new PackedReader(packed);
        if (reader.type() != ValueType.ARRAY || reader.arrayHeader() == 0) {
            throw new IllegalArgumentException("there is no choice");
        }
        int from = reader.position();
        reader.skip();
        return Arrays.copyOfRange(packed, from, reader.position());
    }
}
