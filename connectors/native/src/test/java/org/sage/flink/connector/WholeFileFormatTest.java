package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.reader.BulkFormat;
import org.apache.flink.connector.file.src.util.CheckpointedPosition;
import org.apache.flink.connector.file.src.util.RecordAndPosition;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.sage.flink.wire.WireRecord;

class WholeFileFormatTest {

    @TempDir Path folder;

    @Test
    void everyVisibleFileWithASuffixIsOneRecord() throws Exception {
        write("a.md", "alpha");
        write("deep/b.MD", "beta");
        write("c.bin", "other suffix");
        write(".hidden.md", "hidden");
        write("_deep/d.md", "hidden folder");

        Map<String, WireRecord> found = run(List.of(".md"));

        assertEquals(List.of("a.md", "deep/b.MD"), List.copyOf(found.keySet()));
        WireRecord file = found.get("deep/b.MD");
        assertEquals("deep/b.MD", file.origin());
        assertArrayEquals("beta".getBytes(), file.value());
        assertNull(file.key());
        assertEquals(
                Files.getLastModifiedTime(folder.resolve("deep/b.MD")).toMillis(),
                file.timestampMs());
        assertEquals(
                folder.resolve("deep/b.MD").toString(), new String(file.headers().get("path")));
    }

    @Test
    void subfoldersAreListedOnlyIfRecursive() throws Exception {
        write("a.md", "alpha");
        write("deep/b.md", "beta");

        assertEquals(List.of("a.md"), fileNames(false));
        assertEquals(List.of("a.md", "b.md"), fileNames(true));
    }

    @Test
    void aFileAboveTheLimitHasItsSizeInsteadOfItsContent() throws Exception {
        write("at.txt", "12345");
        write("above.txt", "123456");
        WholeFileFormat format = new WholeFileFormat(folder.toString(), 5);
        Configuration config = new Configuration();

        WireRecord at = only(format.createReader(config, split("at.txt", 0)));
        WireRecord above = only(format.createReader(config, split("above.txt", 0)));

        assertArrayEquals("12345".getBytes(), at.value());
        assertNull(above.value());
        assertEquals("6", new String(above.headers().get("oversize")));
    }

    @Test
    void aMissingFileHasTheReasonInAHeader() throws Exception {
        WireRecord gone = only(format().createReader(new Configuration(), split("gone.txt", 0)));

        assertNull(gone.value());
        assertNotNull(gone.headers().get("unreadable"));
    }

    @Test
    void aFileEmittedBeforeTheCheckpointIsNotEmittedAfterIt() throws Exception {
        write("a.txt", "alpha");
        Configuration config = new Configuration();

        assertNotNull(only(format().restoreReader(config, split("a.txt", 0))));
        assertNull(format().restoreReader(config, split("a.txt", 1)).readBatch());
    }

    private WholeFileFormat format() {
        return new WholeFileFormat(folder.toString(), 1000);
    }

    private FileSourceSplit split(String name, long emitted) {
        return new FileSourceSplit(
                "0",
                new org.apache.flink.core.fs.Path(folder.resolve(name).toUri()),
                0,
                5,
                0,
                5,
                new String[0],
                new CheckpointedPosition(CheckpointedPosition.NO_OFFSET, emitted));
    }

    private List<String> fileNames(boolean recursive) throws IOException {
        var root = new org.apache.flink.core.fs.Path(folder.toUri());
        return new VisibleFileEnumerator(List.of(), recursive)
                .enumerateSplits(new org.apache.flink.core.fs.Path[] {root}, 1).stream()
                        .map(split -> split.path().getName())
                        .toList();
    }

    private static WireRecord only(BulkFormat.Reader<byte[]> reader) throws IOException {
        BulkFormat.RecordIterator<byte[]> batch = reader.readBatch();
        RecordAndPosition<byte[]> first = batch.next();
        byte[] record = first.getRecord();
        assertEquals(1, first.getRecordSkipCount());
        assertNull(batch.next());
        assertNull(reader.readBatch());
        return WireRecord.decode(record);
    }

    private void write(String name, String content) throws IOException {
        Path file = folder.resolve(name);
        Files.createDirectories(file.getParent());
        Files.writeString(file, content);
    }

    private Map<String, WireRecord> run(List<String> suffixes) throws Exception {
        StreamExecutionEnvironment env =
                StreamExecutionEnvironment.createLocalEnvironment(1, new Configuration());
        var source = WholeFileFormat.source(folder.toString(), suffixes, true);
        Map<String, WireRecord> found = new TreeMap<>();
        List<byte[]> out = new ArrayList<>();
        try (var rows =
                env.fromSource(source, WatermarkStrategy.noWatermarks(), "files")
                        .executeAndCollect()) {
            rows.forEachRemaining(out::add);
        }
        out.stream().map(WireRecord::decode).forEach(record -> found.put(record.id(), record));
        assertEquals(out.size(), found.size());
        return found;
    }
}
