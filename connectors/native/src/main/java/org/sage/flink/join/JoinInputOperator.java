package org.sage.flink.join;

import java.util.List;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;

/** Operator before each input of a join: a record that no keyed step can take is a dead letter. */
public final class JoinInputOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final FailedRecords failed;
    private final String readCounter;

    private transient RecordFields fields;

    JoinInputOperator(FailedRecords failed, String readCounter) {
        this.failed = failed;
        this.readCounter = readCounter;
    }

    @Override
    public void open() throws Exception {
        super.open();
        fields = new RecordFields(List.of());
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        String flaw = Keys.flaw(fields.read(record));
        if (flaw.isEmpty()) {
            output.collect(element);
        } else {
            failed.refuse(output, record, flaw, readCounter);
        }
    }
}
