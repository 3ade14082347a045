package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
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
    void aByteThatIsNotUtf8IsEscapedInTheId() throws Exception {
        Map<String, String> ids =
                Map.of(
                        "%FE.md", "\\xfe.md",
                        "%FF.md", "\\xff.md",
                        "%5Cxff.md", "\\x5cxff.md",
                        "%5Cx2d.md", "\\x2d.md",
                        "%EF%BF%BD.md", "\uFFFD.md",
                        "d%E2%82/caf%C3%A9.md", "d\\xe2\\x82/caf\u00E9.md");
        for (String name : ids.keySet()) {
            write(file(name), name);
        }

        Map<String, WireRecord> found = run(List.of(".md"));

        assertEquals(new TreeSet<>(ids.values()), found.keySet());
        for (var each : ids.entrySet()) {
            WireRecord record = found.get(each.getValue());
            assertArrayEquals(each.getKey().getBytes(), record.value());
            assertEquals(each.getValue(), record.origin());
        }
        byte[] path = (folder + "/\u00FF.md").getBytes(StandardCharsets.ISO_8859_1);
        assertArrayEquals(path, found.get("\\xff.md").headers().get("path"));
    }

    @Test
    void theFolderMayHaveABackslashAndLookEscaped() throws Exception {
        Path odd = file("odd%5Cxff%20%C3%9F");
        write(odd.resolve("a.md"), "alpha");
        WholeFileFormat format = new WholeFileFormat(LocalPathsTest.utf8(odd), 1000);
        var root = LocalPaths.root(LocalPathsTest.utf8(odd));

        List<FileSourceSplit> splits = splits(root, true);
        WireRecord read = only(format.createReader(new Configuration(), splits.get(0)));

        assertEquals("a.md", read.id());
        assertArrayEquals("alpha".getBytes(), read.value());
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
        return splits(new org.apache.flink.core.fs.Path(folder.toUri()), recursive).stream()
                .map(split -> split.path().getName())
                .toList();
    }

    private static List<FileSourceSplit> splits(
            org.apache.flink.core.fs.Path root, boolean recursive) throws IOException {
        var enumerator = new VisibleFileEnumerator(List.of(), recursive);
        return List.copyOf(
                enumerator.enumerateSplits(new org.apache.flink.core.fs.Path[] {root}, 1));
    }

    /** The file below the folder with this name, in which each byte may be percent-encoded. */
    private Path file(String encoded) {
        return Path.of(URI.create(folder.toUri() + encoded));
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
        write(folder.resolve(name), content);
    }

    private static void write(Path file, String content) throws IOException {
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
