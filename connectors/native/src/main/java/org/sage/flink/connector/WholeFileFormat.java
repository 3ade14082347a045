package org.sage.flink.connector;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.reader.BulkFormat;
import org.apache.flink.connector.file.src.util.RecordAndPosition;
import org.apache.flink.connector.file.src.util.SingletonResultIterator;
import org.sage.flink.wire.WireRecord;

/**
 * File format with one wire record for each file: id and origin are the path relative to the root
 * (of a local file as {@link LocalPaths} writes it), the value is the content, the timestamp is its
 * modification time (0 where there is no content), header {@code path} is the full path. Files are
 * not split, and a file emitted before a checkpoint is not emitted again after it.
 *
 * <p>Never throws on content: a file above the limit has value nil and header {@code oversize} (its
 * size in bytes, as text); an unreadable file has value nil and header {@code unreadable} (the
 * reason).
 */
public final class WholeFileFormat implements BulkFormat<byte[], FileSourceSplit> {

    private static final long serialVersionUID = 1L;

    /** The default limit: 64 MiB. */
    public static final long BYTES_MAX = 64L << 20;

    private final String root;
    private final long bytesMax;

    /**
     * @param bytesMax limit on the size of a file; at most 2^31 - 1024, because a value is one array
     */
    public WholeFileFormat(String root, long bytesMax) {
        if (bytesMax < 1 || bytesMax > Integer.MAX_VALUE - 1024) {
            throw new IllegalArgumentException(
                    "files of '" + root + "': bytes_max must be 1 to 2147482623, got " + bytesMax);
        }
        this.root = root;
        this.bytesMax = bytesMax;
    }

    /** {@link #source(String, List, boolean, long)} with a limit of {@link #BYTES_MAX}. */
    public static FileSource<byte[]> source(
            String root, List<String> suffixes, boolean recursive) {
        return source(root, suffixes, recursive, BYTES_MAX);
    }

    /**
     * A bounded source of the files below {@code root} at the start of the job, except hidden files.
     *
     * @param suffixes for instance {@code [".md", ".txt"]}; an empty list means every file
     * @param recursive also the files of folders below
     */
    public static FileSource<byte[]> source(
            String root, List<String> suffixes, boolean recursive, long bytesMax) {
        WholeFileFormat format = new WholeFileFormat(root, bytesMax);
        return FileSource.forBulkFileFormat(format, LocalPaths.root(root))
                .setFileEnumerator(VisibleFileEnumerator.provider(suffixes, recursive))
                .build();
    }

    @Override
    public Reader<byte[]> createReader(Configuration config, FileSourceSplit split) {
        return new SingleRecordReader(() -> read(split));
    }

    @Override
    public Reader<byte[]> restoreReader(Configuration config, FileSourceSplit split) {
        boolean emitted =
                split.getReaderPosition()
                        .map(position -> position.getRecordsAfterOffset() > 0)
                        .orElse(false);
        return emitted ? new SingleRecordReader(null) : createReader(config, split);
    }

    @Override
    public boolean isSplittable() {
        return false;
    }

    @Override
    public TypeInformation<byte[]> getProducedType() {
        return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    }

    private byte[] read(FileSourceSplit split) {
        String path = split.path().getPath();
        boolean isLocal = LocalPaths.isLocal(split.path());
        String id = isLocal ? relative(path, LocalPaths.textOf(root)) : relative(path, root);
        Map<String, byte[]> headers = new LinkedHashMap<>();
        headers.put("path", isLocal ? LocalPaths.bytes(path) : text(path));
        try {
            FileContent content = FileContent.read(split.path(), bytesMax);
            if (content.value() == null) {
                headers.put("oversize", text(String.valueOf(content.size())));
            }
            return new WireRecord(
                            id, content.value(), content.modifiedMs(), null, headers, id)
                    .encode();
        } catch (IOException e) {
            headers.put("unreadable", text(FileContent.reason(e)));
            return new WireRecord(id, null, 0, null, headers, id).encode();
        }
    }

    private static String relative(String path, String root) {
        // Compare paths only: the scheme of the configured root and of a listed file can differ.
        String base = LocalPaths.root(root).getPath();
        if (path.equals(base)) {
            return path.substring(path.lastIndexOf('/') + 1);
        }
        String folder = base.endsWith("/") ? base : base + "/";
        return path.startsWith(folder) ? path.substring(folder.length()) : path;
    }

    private static byte[] text(String value) {
        return value.getBytes(StandardCharsets.UTF_8);
    }

    private interface Content {
        byte[] read();
    }

    /** Reader of a single record; of no record if the content is null. */
    private static final class SingleRecordReader implements Reader<byte[]> {
        private Content content;

        SingleRecordReader(Content content) {
            this.content = content;
        }

        @Override
        public RecordIterator<byte[]> readBatch() {
            if (content == null) {
                return null;
            }
            SingletonResultIterator<byte[]> batch = new SingletonResultIterator<>();
            batch.set(content.read(), RecordAndPosition.NO_OFFSET, 1);
            content = null;
            return batch;
        }

        @Override
        public void close() {}
    }
}
