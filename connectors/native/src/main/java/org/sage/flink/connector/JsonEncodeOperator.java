package org.sage.flink.connector;

import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordMapOperator;

/**
 * Operator that encodes records as messages in JSON: an upsert's value becomes its JSON text, a
 * delete becomes a tombstone. The message's key is the record's key, else its id. A record that has
 * no such message is a dead letter. The Python twin is {@code Encode} in {@code
 * sage_flink/flow/formats.py}.
 */
public final class JsonEncodeOperator extends RecordMapOperator {

    private static final long serialVersionUID = 1L;

    private static final int NAME_MAX = 200;

    private JsonEncodeOperator(FailedRecords failed) {
        super(failed, List.of());
    }

    /** Appends this operator to the stream, as {@code step}. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String step, String job, String run) {
        return new JsonEncodeOperator(new FailedRecords(step, job, run)).wire(in, step + ".json");
    }

    @Override
    protected byte[] map(byte[] record, RecordFields.Found found) {
        byte[] key =
                found.key() == null ? found.id().getBytes(StandardCharsets.UTF_8) : found.key();
        byte[] value = null;
        if (found.isDelete()) {
            requireWhole(found.documentAndVersion());
        } else {
            value = JsonEncoder.encode(record, found.valueFrom(), found.valueTo());
        }
        return RecordChange.asMessage(record, found, value, key);
    }

    private static void requireWhole(String[] documentAndVersion) {
        if (!documentAndVersion[1].isEmpty()) {
            String name = documentAndVersion[0];
            throw new IllegalArgumentException(
                    "a delete of all rows of '"
                            + name.substring(0, Math.min(NAME_MAX, name.length()))
                            + "' but those of one version has no message; put DropDeletes() before"
                            + " the sink, or write documents instead of chunks");
        }
    }
}
