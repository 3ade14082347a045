package org.sage.flink.window;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSchemaCompatibility;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.core.memory.DataOutputView;

/** Serializer of the accumulators of a window step, in the order of its aggregates. */
public final class AccumulatorsSerializer extends TypeSerializer<Accumulator[]> {

    private static final long serialVersionUID = 1L;

    private static final int BUFFER_BYTES = 256;

    private final Aggregates aggregates;

    AccumulatorsSerializer(Aggregates aggregates) {
        this.aggregates = aggregates;
    }

    @Override
    public Accumulator[] createInstance() {
        return aggregates.accumulators();
    }

    @Override
    public void serialize(Accumulator[] accumulators, DataOutputView out) throws IOException {
        for (Accumulator accumulator : accumulators) {
            accumulator.write(out);
        }
    }

    @Override
    public Accumulator[] deserialize(DataInputView in) throws IOException {
        Accumulator[] accumulators = createInstance();
        for (Accumulator accumulator : accumulators) {
            accumulator.read(in);
        }
        return accumulators;
    }

    @Override
    public Accumulator[] deserialize(Accumulator[] reuse, DataInputView in) throws IOException {
        return deserialize(in);
    }

    @Override
    public Accumulator[] copy(Accumulator[] from) {
        try {
            DataOutputSerializer out = new DataOutputSerializer(BUFFER_BYTES);
            serialize(from, out);
            return deserialize(new DataInputDeserializer(out.getCopyOfBuffer()));
        } catch (IOException e) {
            throw new IllegalStateException("memory was not readable", e);
        }
    }

    @Override
    public Accumulator[] copy(Accumulator[] from, Accumulator[] reuse) {
        return copy(from);
    }

    @Override
    public void copy(DataInputView in, DataOutputView out) throws IOException {
        serialize(deserialize(in), out);
    }

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public TypeSerializer<Accumulator[]> duplicate() {
        return this;
    }

    @Override
    public int getLength() {
        return -1;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof AccumulatorsSerializer
                && aggregates.equals(((AccumulatorsSerializer) other).aggregates);
    }

    @Override
    public int hashCode() {
        return aggregates.hashCode();
    }

    @Override
    public TypeSerializerSnapshot<Accumulator[]> snapshotConfiguration() {
        return new Snapshot(aggregates);
    }

    /** The aggregates that wrote the state of a savepoint: others cannot read it. */
    public static final class Snapshot implements TypeSerializerSnapshot<Accumulator[]> {

        private static final int VERSION = 1;

        private Aggregates aggregates;

        /** For Flink, which then calls {@link #readSnapshot}. */
        public Snapshot() {}

        Snapshot(Aggregates aggregates) {
            this.aggregates = aggregates;
        }

        @Override
        public int getCurrentVersion() {
            return VERSION;
        }

        @Override
        public void writeSnapshot(DataOutputView out) throws IOException {
            Accumulator.writeBytes(out, aggregates.toString().getBytes(StandardCharsets.UTF_8));
        }

        @Override
        public void readSnapshot(int version, DataInputView in, ClassLoader loader)
                throws IOException {
            aggregates = Aggregates.of(new String(Accumulator.readBytes(in), StandardCharsets.UTF_8));
        }

        @Override
        public TypeSerializer<Accumulator[]> restoreSerializer() {
            return new AccumulatorsSerializer(aggregates);
        }

        @Override
        public TypeSerializerSchemaCompatibility<Accumulator[]> resolveSchemaCompatibility(
                TypeSerializerSnapshot<Accumulator[]> before) {
            Aggregates old = ((Snapshot) before).aggregates;
            if (!old.equals(aggregates)) {
                throw new IllegalStateException(
                        "the savepoint holds windows of other aggregates, "
                                + old
                                + ", and the step has "
                                + aggregates
                                + ": give the step another name, and its old state up with "
                                + "--drop-state");
            }
            return TypeSerializerSchemaCompatibility.compatibleAsIs();
        }
    }
}
