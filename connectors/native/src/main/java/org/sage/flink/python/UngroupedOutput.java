package org.sage.flink.python;

import org.apache.flink.runtime.event.WatermarkEvent;
import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.RecordAttributes;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.util.OutputTag;
import org.sage.flink.wire.ElementGroup;

/** Output of a Python stage: an {@link ElementGroup} is collected element by element. */
final class UngroupedOutput<T> implements Output<StreamRecord<T>> {

    private final Output<StreamRecord<T>> output;

    UngroupedOutput(Output<StreamRecord<T>> output) {
        this.output = output;
    }

    @Override
    @SuppressWarnings("unchecked")
    public void collect(StreamRecord<T> record) {
        if (!(record.getValue() instanceof byte[] value) || !ElementGroup.is(value)) {
            output.collect(record);
            return;
        }
        for (byte[] element : ElementGroup.split(value)) {
            output.collect(record.copy((T) (Object) element));
        }
    }

    @Override
    public <X> void collect(OutputTag<X> tag, StreamRecord<X> record) {
        output.collect(tag, record);
    }

    @Override
    public void emitWatermark(Watermark mark) {
        output.emitWatermark(mark);
    }

    @Override
    public void emitWatermark(WatermarkEvent watermark) {
        output.emitWatermark(watermark);
    }

    @Override
    public void emitWatermarkStatus(WatermarkStatus status) {
        output.emitWatermarkStatus(status);
    }

    @Override
    public void emitLatencyMarker(LatencyMarker marker) {
        output.emitLatencyMarker(marker);
    }

    @Override
    public void emitRecordAttributes(RecordAttributes attributes) {
        output.emitRecordAttributes(attributes);
    }

    @Override
    public void close() {
        output.close();
    }
}
