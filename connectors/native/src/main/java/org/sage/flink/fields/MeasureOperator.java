package org.sage.flink.fields;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.msgpack.value.ValueType;
import org.sage.flink.wire.DerivedId;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedReader;
import org.sage.flink.wire.PackedWriter;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordMapOperator;
import org.sage.flink.wire.RequiredField;

/**
 * Operator that makes a point of a time series of each record; a delete ends here. The Python twin
 * is {@code sage_flink/operators/measure.py}, which says how a point is identified.
 */
public final class MeasureOperator extends RecordMapOperator {

    private static final long serialVersionUID = 1L;

    private static final int DIGEST = 8;
    private static final long NS_PER_MS = 1_000_000;
    private static final long TIME_MIN_NS = Long.MIN_VALUE + 2;
    private static final long TIME_MAX_NS = Long.MAX_VALUE - 1;

    private final String step;
    private final String measurement;
    private final List<String> fields;
    private final List<String> tags;
    private final List<String> shown;

    private MeasureOperator(
            FailedRecords failed,
            String measurement,
            List<String> fields,
            List<String> tags,
            List<String> shown) {
        super(failed, List.of());
        this.step = failed.step();
        this.measurement = measurement;
        this.fields = fields;
        this.tags = tags;
        this.shown = shown;
    }

    /**
     * Appends this operator to the stream, as {@code step}.
     *
     * @param shown the names of the tags and then of the fields, as messages show them
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in,
            String step,
            String job,
            String run,
            String measurement,
            List<String> fields,
            List<String> tags,
            List<String> shown) {
        FailedRecords failed = new FailedRecords(step, job, run);
        return new MeasureOperator(
                        failed,
                        measurement,
                        new ArrayList<>(fields),
                        new ArrayList<>(tags),
                        new ArrayList<>(shown))
                .wire(in, step);
    }

    @Override
    protected byte[] map(byte[] record, RecordFields.Found found) {
        if (found.isDelete()) {
            return null;
        }
        byte[] digest = DerivedId.digest(found.id(), DIGEST);
        long timeNs = timeNs(found.timestampMs(), digest);
        PackedWriter point = new PackedWriter(256);
        point.mapHeader(4);
        point.string("measurement").string(measurement);
        point.string("tags").mapHeader(1 + tags.size());
        point.string("shard").string(String.format("%02x", digest[0]));
        for (int i = 0; i < tags.size(); i++) {
            PackedReader tag = RequiredField.find(record, found, tags.get(i), shown.get(i));
            int from = tag.position();
            tag.skip();
            point.string(tags.get(i)).raw(record, from, tag.position());
        }
        point.string("fields").mapHeader(fields.size());
        for (int i = 0; i < fields.size(); i++) {
            point.string(fields.get(i));
            number(record, found, i, point);
        }
        point.string("timestamp_ns").number(timeNs);
        return RecordChange.child(
                record, found, DerivedId.of(found.id(), step, 0), point.toByteArray());
    }

    /** The number in the field; of a text the length in characters, of bytes their number. */
    private void number(byte[] record, RecordFields.Found found, int index, PackedWriter point) {
        String name = shown.get(tags.size() + index);
        PackedReader field = RequiredField.find(record, found, fields.get(index), name);
        int from = field.position();
        ValueType type = field.type();
        switch (type) {
            case STRING -> {
                String text = field.string();
                point.number(text.codePointCount(0, text.length()));
            }
            case BINARY -> point.number(field.bytes().length);
            case INTEGER, FLOAT, BOOLEAN -> {
                field.skip();
                point.raw(record, from, field.position());
            }
            default -> throw RequiredField.other(name, "a number or text", type);
        }
    }

    private static long timeNs(long timestampMs, byte[] digest) {
        long below = 0;
        for (int i = 1; i < DIGEST; i++) {
            below = below << Byte.SIZE | digest[i] & 0xff;
        }
        try {
            long wholeNs = Math.multiplyExact(timestampMs, NS_PER_MS);
            long timeNs = Math.addExact(wholeNs, below % NS_PER_MS);
            if (timeNs >= TIME_MIN_NS && timeNs <= TIME_MAX_NS) {
                return timeNs;
            }
        } catch (ArithmeticException e) {
            // Refused below, as a time that is out of range.
        }
        throw new IllegalArgumentException(
                "timestamp_ms "
                        + timestampMs
                        + " is not between the years 1677 and 2262, as the time of a point must be");
    }
}
