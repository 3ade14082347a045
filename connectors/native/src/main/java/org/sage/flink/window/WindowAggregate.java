package org.sage.flink.window;

import org.apache.flink.api.common.functions.AggregateFunction;
import org.sage.flink.wire.RecordFields;

/** All aggregates of a window step, over wire records. */
final class WindowAggregate
        implements AggregateFunction<byte[], Accumulator[], Accumulator[]> {

    private static final long serialVersionUID = 1L;

    private final Aggregates aggregates;

    private transient RecordFields fields;

    WindowAggregate(Aggregates aggregates) {
        this.aggregates = aggregates;
    }

    @Override
    public Accumulator[] createAccumulator() {
        return aggregates.accumulators();
    }

    @Override
    public Accumulator[] add(byte[] record, Accumulator[] accumulators) {
        if (fields == null) {
            fields = new RecordFields(aggregates.fields());
        }
        RecordFields.Found found = fields.read(record);
        for (int i = 0; i < accumulators.length; i++) {
            byte[] value = found.fields()[aggregates.valueAt(i)];
            accumulators[i].add(found.fields()[i], value, found.timestampMs());
        }
        return accumulators;
    }

    @Override
    public Accumulator[] getResult(Accumulator[] accumulators) {
        return accumulators;
    }

    @Override
    public Accumulator[] merge(Accumulator[] one, Accumulator[] other) {
        for (int i = 0; i < one.length; i++) {
            one[i].merge(other[i]);
        }
        return one;
    }
}
