package org.sage.flink.join;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Predicate;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;

/**
 * The records of one input that are kept for a key: a map by time, as in Flink's own interval join.
 * Each record of the other input looks at all of its times.
 */
final class KeptRecords {

    /** Records of one time in the order of arrival, each with whether it has met another. */
    private static final TypeInformation<List<Tuple2<byte[], Boolean>>> RECORDS =
            Types.LIST(
                    Types.TUPLE(
                            PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO, Types.BOOLEAN));

    private final MapState<Long, List<Tuple2<byte[], Boolean>>> byTime;

    KeptRecords(MapState<Long, List<Tuple2<byte[], Boolean>>> byTime) {
        this.byTime = byTime;
    }

    static MapStateDescriptor<Long, List<Tuple2<byte[], Boolean>>> descriptor(String name) {
        return new MapStateDescriptor<>(name, Types.LONG, RECORDS);
    }

    void add(long timestampMs, byte[] record, boolean hasMet) throws Exception {
        List<Tuple2<byte[], Boolean>> same = byTime.get(timestampMs);
        List<Tuple2<byte[], Boolean>> all = same == null ? new ArrayList<>(1) : same;
        all.add(Tuple2.of(record, hasMet));
        byTime.put(timestampMs, all);
    }

    /** The matching records of these times, by time and arrival, which then have met one. */
    List<byte[]> meet(long fromMs, long toMs, Predicate<byte[]> matches) throws Exception {
        Map<Long, List<Tuple2<byte[], Boolean>>> near = new TreeMap<>();
        for (Map.Entry<Long, List<Tuple2<byte[], Boolean>>> entry : byTime.entries()) {
            if (fromMs <= entry.getKey() && entry.getKey() <= toMs) {
                near.put(entry.getKey(), entry.getValue());
            }
        }
        List<byte[]> met = new ArrayList<>();
        for (Map.Entry<Long, List<Tuple2<byte[], Boolean>>> entry : near.entrySet()) {
            boolean isNew = false;
            for (Tuple2<byte[], Boolean> record : entry.getValue()) {
                if (!matches.test(record.f0)) {
                    continue;
                }
                met.add(record.f0);
                isNew |= !record.f1;
                record.f1 = true;
            }
            if (isNew) {
                byTime.put(entry.getKey(), entry.getValue());
            }
        }
        return met;
    }

    /** Removes the records of this time; returns those that met no other. */
    List<byte[]> remove(long timestampMs) throws Exception {
        List<Tuple2<byte[], Boolean>> records = byTime.get(timestampMs);
        if (records == null) {
            return List.of();
        }
        byTime.remove(timestampMs);
        return records.stream().filter(record -> !record.f1).map(record -> record.f0).toList();
    }

    List<Long> times() throws Exception {
        List<Long> times = new ArrayList<>();
        byTime.keys().forEach(times::add);
        return times;
    }
}
