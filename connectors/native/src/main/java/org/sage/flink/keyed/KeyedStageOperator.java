package org.sage.flink.keyed;

import java.io.IOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.memory.ByteArrayInputStreamWithPos;
import org.apache.flink.core.memory.DataInputViewStreamWrapper;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.python.DataStreamPythonFunctionInfo;
import org.apache.flink.streaming.api.operators.python.process.AbstractExternalDataStreamPythonFunctionOperator;
import org.apache.flink.streaming.api.operators.python.process.ExternalPythonProcessOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.types.Row;
import org.apache.flink.util.OutputTag;
import org.sage.flink.python.PythonStageOperator;
import org.sage.flink.wire.KeyedElement;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.StageSignal;

/**
 * A Python stage whose first step keeps state for each key: the state is that of this operator.
 *
 * <p>A key's first record in a bundle is sent with the key's state. When the bundle ends, the stage
 * emits the states that have changed, to the side output {@code state}. They are written with the
 * results, when the worker has survived the bundle; so a bundle that is run again, record by record,
 * begins with the states from before it.
 */
public final class KeyedStageOperator<OUT> extends PythonStageOperator<byte[], OUT> {

    private static final long serialVersionUID = 1L;

    private static final OutputTag<byte[]> STATE =
            new OutputTag<>("state", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    /** 0: states never expire. */
    private final long ttlMs;

    private transient ValueState<byte[]> state;
    private transient RecordFields fields;
    /** The keys whose state the worker has. */
    private transient Set<String> sent;
    /** The states of the bundle that the worker has finished; null: none. */
    private transient Map<String, byte[]> changed;

    KeyedStageOperator(
            Configuration config,
            DataStreamPythonFunctionInfo function,
            TypeInformation<byte[]> inputType,
            TypeInformation<OUT> outputType,
            long ttlMs) {
        super(config, function, inputType, outputType, false);
        this.ttlMs = ttlMs;
        addSideOutputTags(List.of(STATE));
    }

    /** The output of {@code operator}'s function on {@code stream}, by the key of each record. */
    public static <OUT> SingleOutputStreamOperator<OUT> wire(
            DataStream<byte[]> stream,
            ExternalPythonProcessOperator<byte[], OUT> operator,
            String name,
            long ttlMs) {
        TypeInformation<OUT> outputType = operator.getProducedType();
        return stream.keyBy(new Keys.OfRecord(), Types.STRING)
                .transform(
                        name,
                        outputType,
                        new KeyedStageOperator<>(
                                operator.getConfiguration(),
                                operator.getPythonFunctionInfo(),
                                stream.getType(),
                                outputType,
                                ttlMs));
    }

    @Override
    public void open() throws Exception {
        fields = new RecordFields(List.of());
        sent = new HashSet<>();
        changed = new HashMap<>();
        ValueStateDescriptor<byte[]> descriptor =
                new ValueStateDescriptor<>(
                        "state", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
        if (ttlMs > 0) {
            descriptor.enableTimeToLive(
                    StateTtlConfig.newBuilder(Duration.ofMillis(ttlMs))
                            .setUpdateType(StateTtlConfig.UpdateType.OnReadAndWrite)
                            .cleanupIncrementally(10, true)
                            .build());
        }
        state = getRuntimeContext().getState(descriptor);
        super.open();
    }

    @Override
    protected StreamRecord<byte[]> toWorker(StreamRecord<byte[]> element) throws IOException {
        byte[] record = element.getValue();
        RecordFields.Found found = fields.read(record);
        String key = Keys.flaw(found).isEmpty() ? Keys.text(found.key()) : null;
        if (key == null || !sent.add(key)) {
            return element.copy(KeyedElement.of(record));
        }
        return element.copy(KeyedElement.withState(record, stateOf(key)));
    }

    private byte[] stateOf(String key) throws IOException {
        if (changed.containsKey(key)) {
            return changed.get(key);
        }
        setCurrentKey(key);
        return state.value();
    }

    @Override
    protected void endWorkerBundle() throws Exception {
        signal(StageSignal.STATES);
    }

    @Override
    protected void workerFinished(List<Tuple3<String, byte[], Integer>> results) throws Exception {
        sent.clear();
        for (Tuple3<String, byte[], Integer> result : results) {
            if (result.f0.equals(STATE.getId())) {
                readChange(result);
            }
        }
        results.removeIf(result -> result.f0.equals(STATE.getId()));
    }

    @Override
    protected void workerDied() {
        sent.clear();
    }

    @Override
    protected void emitting() throws Exception {
        for (Map.Entry<String, byte[]> change : changed.entrySet()) {
            setCurrentKey(change.getKey());
            if (change.getValue() == null) {
                state.clear();
            } else {
                state.update(change.getValue());
            }
        }
        changed.clear();
    }

    private void readChange(Tuple3<String, byte[], Integer> result) throws IOException {
        Row row =
                getSideOutputTypeSerializerById(STATE.getId())
                        .deserialize(
                                new DataInputViewStreamWrapper(
                                        new ByteArrayInputStreamWithPos(
                                                result.f1, 0, result.f2)));
        KeyedElement.Change change = KeyedElement.change((byte[]) row.getField(1));
        changed.put(Keys.text(change.key()), change.state());
    }

    @Override
    public <T> AbstractExternalDataStreamPythonFunctionOperator<T> copy(
            DataStreamPythonFunctionInfo function, TypeInformation<T> outputType) {
        return new KeyedStageOperator<>(config, function, getInputTypeInfo(), outputType, ttlMs);
    }
}
