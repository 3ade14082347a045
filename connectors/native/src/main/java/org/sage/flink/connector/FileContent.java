package org.sage.flink.connector;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.attribute.BasicFileAttributes;
import org.apache.flink.core.fs.FileStatus;
import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.Path;

/**
 * The content of a file at one moment: {@code value} is null where the file is larger than the
 * limit. The same rules, and the same words in an error, as in {@code files.py}.
 */
record FileContent(byte[] value, long size, long modifiedMs) {

    /** How often a file that changes while it is read is read. */
    static final int READS_MAX = 2;

    private static final String LINK_CIRCLE = "Too many levels of symbolic links";

    /**
     * Never waits for a writer: what is not a regular file, such as a FIFO, is not opened.
     *
     * @throws IOException the file cannot be read, is not a regular one, or changes all the time;
     *     {@link #reason} has the words for it
     */
    static FileContent read(Path path, long bytesMax) throws IOException {
        FileSystem fs = path.getFileSystem();
        Source source = fs.isDistributedFS() ? new RemoteFile(fs, path) : new LocalFile(path);
        return read(source, bytesMax);
    }

    static FileContent read(Source source, long bytesMax) throws IOException {
        for (int reads = 0; reads < READS_MAX; reads++) {
            Version before = source.version();
            byte[] value = new byte[0];
            if (before.size <= bytesMax) {
                try (InputStream in = source.open()) {
                    value = in.readNBytes((int) bytesMax + 1);
                }
            }
            if (before.equals(source.version())) {
                long size = Math.max(before.size, value.length);
                return new FileContent(size <= bytesMax ? value : null, size, before.modifiedMs());
            }
        }
        throw new IOException("it changed while it was read, each time");
    }

    /** Why the file could not be read, without its path, in the words of the C library. */
    static String reason(IOException error) {
        if (error instanceof NoSuchFileException) {
            return "No such file or directory";
        }
        if (error instanceof AccessDeniedException) {
            return "Permission denied";
        }
        String reason = String.valueOf(error.getMessage());
        if (error instanceof FileSystemException named && named.getReason() != null) {
            reason = named.getReason();
        }
        return reason.startsWith(LINK_CIRCLE) ? LINK_CIRCLE : reason;
    }

    /** A file that can be opened, and what shows that it is still the same. */
    interface Source {
        Version version() throws IOException;

        InputStream open() throws IOException;
    }

    /** The key is null where the file system has none. */
    record Version(Object key, long size, long modifiedNs) {
        long modifiedMs() {
            return Math.floorDiv(modifiedNs, 1_000_000);
        }
    }

    private record LocalFile(java.nio.file.Path path) implements Source {
        LocalFile(Path path) throws IOException {
            this(localPath(path));
        }

        private static java.nio.file.Path localPath(Path path) throws IOException {
            try {
                return LocalPaths.file(path.getPath());
            } catch (IllegalArgumentException e) {
                throw new IOException("its path cannot be read: " + e.getMessage(), e);
            }
        }

        @Override
        public Version version() throws IOException {
            BasicFileAttributes found = Files.readAttributes(path, BasicFileAttributes.class);
            if (found.isDirectory()) {
                throw new IOException("the folder cannot be listed");
            }
            if (!found.isRegularFile()) {
                throw new IOException("not a regular file");
            }
            long modifiedNs = found.lastModifiedTime().to(java.util.concurrent.TimeUnit.NANOSECONDS);
            return new Version(found.fileKey(), found.size(), modifiedNs);
        }

        @Override
        public InputStream open() throws IOException {
            return Files.newInputStream(path);
        }
    }

    private record RemoteFile(FileSystem fs, Path path) implements Source {
        @Override
        public Version version() throws IOException {
            FileStatus status = fs.getFileStatus(path);
            return new Version(null, status.getLen(), status.getModificationTime() * 1_000_000);
        }

        @Override
        public InputStream open() throws IOException {
            return fs.open(path);
        }
    }
}
