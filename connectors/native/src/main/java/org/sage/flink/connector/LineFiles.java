package org.sage.flink.connector;

import java.io.IOException;
import java.io.OutputStream;
import org.apache.flink.api.common.serialization.Encoder;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.functions.sink.filesystem.OutputFileConfig;
import org.apache.flink.streaming.api.functions.sink.filesystem.bucketassigners.BasePathBucketAssigner;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.OnCheckpointRollingPolicy;
import org.sage.flink.wire.WireRecord;

/**
 * Factory of file sinks: each record's value, which is bytes or text, and a line feed.
 *
 * <p>A file has the records between two checkpoints of one subtask. Until the second one is complete
 * its name starts with a dot, so that readers of the folder skip it; a restart leaves such files of
 * unfinished checkpoints behind.
 */
public final class LineFiles {

    private LineFiles() {}

    /**
     * A sink of files {@code part-<uuid>-<number><suffix>} in {@code folder}, exactly once.
     *
     * @param folder a path or URI that every TaskManager can write
     */
    public static FileSink<byte[]> sink(String folder, String suffix) {
        OutputFileConfig names =
                OutputFileConfig.builder().withPartPrefix("part").withPartSuffix(suffix).build();
        return FileSink.<byte[]>forRowFormat(new Path(folder), new LineEncoder())
                .withBucketAssigner(new BasePathBucketAssigner<>())
                .withRollingPolicy(OnCheckpointRollingPolicy.build())
                .withOutputFileConfig(names)
                .build();
    }

    private static final class LineEncoder implements Encoder<byte[]> {

        private static final long serialVersionUID = 1L;

        @Override
        public void encode(byte[] record, OutputStream file) throws IOException {
            byte[] line = WireRecord.decode(record).value();
            if (line != null) {
                file.write(line);
            }
            file.write('\n');
        }
    }
}
