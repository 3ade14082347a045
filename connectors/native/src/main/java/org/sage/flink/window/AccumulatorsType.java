package org.sage.flink.window;

import org.apache.flink.api.common.serialization.SerializerConfig;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.TypeSerializer;

/** Flink's type of the accumulators of a window step. */
final class AccumulatorsType extends TypeInformation<Accumulator[]> {

    private static final long serialVersionUID = 1L;

    private final Aggregates aggregates;

    AccumulatorsType(Aggregates aggregates) {
        this.aggregates = aggregates;
    }

    @Override
    public TypeSerializer<Accumulator[]> createSerializer(SerializerConfig config) {
        return new AccumulatorsSerializer(aggregates);
    }

    @Override
    public boolean isBasicType() {
        return false;
    }

    @Override
    public boolean isTupleType() {
        return false;
    }

    @Override
    public int getArity() {
        return 1;
    }

    @Override
    public int getTotalFields() {
        return 1;
    }

    @Override
    public Class<Accumulator[]> getTypeClass() {
        return Accumulator[].class;
    }

    @Override
    public boolean isKeyType() {
        return false;
    }

    @Override
    public String toString() {
        return "Accumulators(" + aggregates + ")";
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof AccumulatorsType
                && aggregates.equals(((AccumulatorsType) other).aggregates);
    }

    @Override
    public int hashCode() {
        return aggregates.hashCode();
    }

    @Override
    public boolean canEqual(Object other) {
        return other instanceof AccumulatorsType;
    }
}
