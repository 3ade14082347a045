package org.sage.flink.broadcast;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.msgpack.value.ValueType;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;

/**
 * Operator of one subtask in front of the broadcast: all changes go through it, so they have one
 * order everywhere, and one that cannot be a row is one dead letter.
 */
public final class BroadcastInputOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    /** As {@code ROWS_BYTES_MAX} in {@code sage_flink/flow/stateful/broadcasts.py}. */
    static final int ROWS_BYTES_MAX = 10_000_000;

    private final FailedRecords failed;

    private transient RecordFields value;
    private transient Map<String, Integer> sizes;
    private transient long size;
    private transient ListState<Tuple2<String, Integer>> state;

    BroadcastInputOperator(FailedRecords failed) {
        this.failed = failed;
    }

    /** The changes that every subtask gets, and counter deltas of those that are refused. */
    public static SingleOutputStreamOperator<byte[]> wire(DataStream<byte[]> in, String config) {
        BroadcastConfig settings = BroadcastConfig.of(config);
        String name = settings.step() + ".right-input";
        return in.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new BroadcastInputOperator(settings.failed()))
                .uid(name)
                .forceNonParallel();
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        state =
                context.getOperatorStateStore()
                        .getListState(
                                new ListStateDescriptor<>(
                                        "sizes", Types.TUPLE(Types.STRING, Types.INT)));
        sizes = new HashMap<>();
        size = 0;
        for (Tuple2<String, Integer> one : state.get()) {
            sizes.put(one.f0, one.f1);
            size += one.f1;
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        value = new RecordFields(List.of(""));
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        RecordFields.Found found = value.read(element.getValue());
        String flaw = Keys.flaw(found, true);
        if (flaw.isEmpty()) {
            flaw = flaw(found);
        }
        if (flaw.isEmpty()) {
            output.collect(element);
        } else {
            failed.refuse(output, element.getValue(), flaw, "right_read");
        }
    }

    /** Why the record cannot be a row; where it can, its size is counted. */
    private String flaw(RecordFields.Found found) {
        try {
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(found.key()));
        } catch (CharacterCodingException e) {
            return "its key is not text in UTF-8";
        }
        String key = Keys.text(found.key());
        byte[] row = found.fields()[0];
        if (found.isDelete()) {
            size -= sizes.getOrDefault(key, 0);
            sizes.remove(key);
            return "";
        }
        if (found.valueType() != ValueType.MAP) {
            return "its value must be a map, the row of its key";
        }
        int own = found.key().length + row.length;
        long next = size - sizes.getOrDefault(key, 0) + own;
        if (next > ROWS_BYTES_MAX) {
            return "with it all rows would have "
                    + next
                    + " bytes, at most "
                    + ROWS_BYTES_MAX
                    + " are kept in each subtask";
        }
        size = next;
        sizes.put(key, own);
        return "";
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        List<Tuple2<String, Integer>> entries = new ArrayList<>();
        sizes.forEach((key, bytes) -> entries.add(Tuple2.of(key, bytes)));
        state.update(entries);
    }
}
