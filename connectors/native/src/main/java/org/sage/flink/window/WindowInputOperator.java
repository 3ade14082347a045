package org.sage.flink.window;

import java.util.List;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.PackedNumber;
import org.sage.flink.wire.RecordFields;

/**
 * Operator before a window: a record that the window cannot take is a dead letter, and any other one
 * has its event time as Flink's timestamp.
 */
public final class WindowInputOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final Aggregates aggregates;
    private final FailedRecords failed;

    private transient RecordFields fields;

    WindowInputOperator(Aggregates aggregates, FailedRecords failed) {
        this.aggregates = aggregates;
        this.failed = failed;
    }

    @Override
    public void open() throws Exception {
        super.open();
        fields = new RecordFields(aggregates.fields());
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        RecordFields.Found found = fields.read(record);
        String flaw = Keys.flaw(found);
        if (flaw.isEmpty()) {
            flaw = flaw(found);
        }
        if (flaw.isEmpty()) {
            output.collect(element.replace(record, found.timestampMs()));
        } else {
            failed.refuse(output, record, flaw);
        }
    }

    private String flaw(RecordFields.Found found) {
        List<Aggregates.Aggregate> all = aggregates.all();
        for (int i = 0; i < all.size(); i++) {
            byte[] packed = found.fields()[i];
            if (packed != null && all.get(i).isOfNumbers() && !PackedNumber.isFinite(packed)) {
                return "its field '" + all.get(i).field() + "' must be a finite number";
            }
        }
        return "";
    }
}
