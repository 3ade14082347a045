package org.sage.flink.window;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.datasketches.hll.HllSketch;
import org.apache.datasketches.hll.TgtHllType;
import org.apache.datasketches.hll.Union;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/**
 * About how many different values there are, by an HLL sketch. Values are equal when their MessagePack
 * is. The Python twin is {@code sage_flink/flow/stateful/sketches.py}.
 */
final class DistinctSketchAccumulator extends Accumulator {

    private static final int LG_K = 12;

    private HllSketch sketch = new HllSketch(LG_K, TgtHllType.HLL_4);

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed != null) {
            // As text, because that is what the Python library takes too.
            sketch.update(new String(packed, StandardCharsets.ISO_8859_1));
        }
    }

    @Override
    void merge(Accumulator other) {
        Union both = new Union(LG_K);
        both.update(sketch);
        both.update(((DistinctSketchAccumulator) other).sketch);
        sketch = both.getResult(TgtHllType.HLL_4);
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        packer.packLong(Math.round(sketch.getEstimate()));
    }

    @Override
    void write(DataOutputView out) throws IOException {
        writeBytes(out, sketch.toCompactByteArray());
    }

    @Override
    void read(DataInputView in) throws IOException {
        sketch = HllSketch.heapify(readBytes(in));
    }
}
