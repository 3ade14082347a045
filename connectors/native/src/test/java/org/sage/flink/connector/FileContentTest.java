package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@Timeout(20)
class FileContentTest {

    @TempDir Path folder;

    @Test
    void aFileThatChangesOnceWhileItIsReadIsReadAgain() throws IOException {
        ChangingFile file = new ChangingFile(1);

        FileContent content = FileContent.read(file, 1000);

        assertArrayEquals("read 2".getBytes(), content.value());
        assertEquals(2, content.modifiedMs());
    }

    @Test
    void aFileThatChangesAtEachReadIsRefused() {
        ChangingFile file = new ChangingFile(100);

        IOException error = assertThrows(IOException.class, () -> FileContent.read(file, 1000));

        assertEquals("it changed while it was read, each time", error.getMessage());
        assertEquals(2, file.reads);
    }

    @Test
    void aFileThatIsTooLargeIsNotRead() throws IOException {
        Path huge = folder.resolve("huge.txt");
        try (RandomAccessFile file = new RandomAccessFile(huge.toFile(), "rw")) {
            file.setLength(1L << 40);
        }

        FileContent content = FileContent.read(flinkPath(huge), 1000);

        assertNull(content.value());
        assertEquals(1L << 40, content.size());
    }

    @Test
    void aFileWithoutAWriterIsNotWaitedFor() throws Exception {
        Path pipe = folder.resolve("pipe.txt");
        assertEquals(0, new ProcessBuilder("mkfifo", pipe.toString()).start().waitFor());

        assertEquals("not a regular file", reason(pipe));
        assertEquals("not a regular file", reason(Path.of("/dev/zero")));
    }

    @Test
    void aReasonHasTheWordsOfTheOperatingSystem() throws IOException {
        Path self = Files.createSymbolicLink(folder.resolve("self"), Path.of("self"));

        assertEquals("No such file or directory", reason(folder.resolve("gone")));
        assertEquals("Too many levels of symbolic links", reason(self));
        assertEquals("the folder cannot be listed", reason(folder));
    }

    private static String reason(Path file) {
        org.apache.flink.core.fs.Path path = flinkPath(file);
        IOException error = assertThrows(IOException.class, () -> FileContent.read(path, 1000));
        return FileContent.reason(error);
    }

    private static org.apache.flink.core.fs.Path flinkPath(Path file) {
        return new org.apache.flink.core.fs.Path(file.toUri());
    }

    /** A file that is written to during each of its first reads. */
    private static final class ChangingFile implements FileContent.Source {
        private final int changes;
        private int reads;
        private int version;

        ChangingFile(int changes) {
            this.changes = changes;
        }

        @Override
        public FileContent.Version version() {
            return new FileContent.Version("file", 6, (version + 1) * 1_000_000L);
        }

        @Override
        public InputStream open() {
            version = Math.min(version + 1, changes);
            reads++;
            return new ByteArrayInputStream(("read " + reads).getBytes());
        }
    }
}
