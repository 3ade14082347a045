package org.sage.flink.connector;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.DirectoryIteratorException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.enumerate.DefaultFileFilter;
import org.apache.flink.connector.file.src.enumerate.FileEnumerator;
import org.apache.flink.connector.file.src.enumerate.NonSplittingRecursiveEnumerator;
import org.apache.flink.core.fs.FileStatus;
import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.Path;

/**
 * Enumerator of the files below a folder, one split each, in the order of their paths. A file is
 * visible if its name, and the name of each folder between it and the root, does not start with '.'
 * or '_'. Suffixes are matched case-insensitively; without suffixes every visible file is listed.
 *
 * <p>On a local file system a file is listed once, whatever links lead to it. A link that leads
 * nowhere and a folder that cannot be listed are listed like files: the reader reports them as
 * unreadable. Flink's own listing fails on each of them, and on a colon in a name. The paths of the
 * splits are those of {@link LocalPaths}.
 */
final class VisibleFileEnumerator extends NonSplittingRecursiveEnumerator {

    private static final DefaultFileFilter VISIBLE = new DefaultFileFilter();

    private final List<String> suffixes;
    private final boolean recursive;

    VisibleFileEnumerator(List<String> suffixes, boolean recursive) {
        this.suffixes = suffixes;
        this.recursive = recursive;
    }

    static FileEnumerator.Provider provider(List<String> suffixes, boolean recursive) {
        // Copied, because Python's list arrives as a proxy that is not serializable.
        ArrayList<String> copy = new ArrayList<>();
        for (String suffix : suffixes) {
            copy.add(suffix.toLowerCase(Locale.ROOT));
        }
        return () -> new VisibleFileEnumerator(copy, recursive);
    }

    @Override
    public Collection<FileSourceSplit> enumerateSplits(Path[] roots, int minDesiredSplits)
            throws IOException {
        ArrayList<FileSourceSplit> splits = new ArrayList<>();
        for (Path root : roots) {
            FileSystem fs = root.getFileSystem();
            if (!fs.isDistributedFS()) {
                addLocal(LocalPaths.file(LocalPaths.textOf(root.getPath())), splits);
                continue;
            }
            FileStatus status = fs.getFileStatus(root);
            if (status.isDir()) {
                addFolder(status, fs, splits);
            } else {
                convertToSourceSplits(status, fs, splits);
            }
        }
        return splits;
    }

    private void addLocal(java.nio.file.Path root, List<FileSourceSplit> splits)
            throws IOException {
        if (Files.isDirectory(root)) {
            addLocalFolder(root, realPath(root), new HashSet<>(), splits);
        } else if (Files.exists(root)) {
            addLocalFile(root, splits);
        } else {
            throw new FileNotFoundException(LocalPaths.text(root) + " does not exist");
        }
    }

    /** {@code real} is the folder's path without links. */
    private void addLocalFolder(
            java.nio.file.Path folder,
            java.nio.file.Path real,
            Set<Object> seen,
            List<FileSourceSplit> splits) {
        if (!seen.add(real)) {
            return;
        }
        List<java.nio.file.Path> entries = new ArrayList<>();
        try (DirectoryStream<java.nio.file.Path> found = Files.newDirectoryStream(folder)) {
            found.forEach(entries::add);
        } catch (IOException | DirectoryIteratorException e) {
            addLocalFile(folder, splits);
            return;
        }
        entries.sort(Comparator.naturalOrder()); // of bytes; that of text depends on the locale
        for (java.nio.file.Path entry : entries) {
            String text = LocalPaths.text(entry);
            String name = text.substring(text.lastIndexOf('/') + 1);
            if (name.startsWith(".") || name.startsWith("_")) {
                continue;
            }
            // Only a link is resolved: to do so looks at each folder of the path.
            java.nio.file.Path realEntry =
                    Files.isSymbolicLink(entry)
                            ? realPath(entry)
                            : real.resolve(entry.getFileName());
            if (Files.isDirectory(entry)) {
                if (recursive) {
                    addLocalFolder(entry, realEntry, seen, splits);
                }
            } else if (isWanted(name) && seen.add(realEntry)) {
                addLocalFile(entry, splits);
            }
        }
    }

    /** The path without links; the path itself where a link leads nowhere. */
    private static java.nio.file.Path realPath(java.nio.file.Path path) {
        try {
            return path.toRealPath();
        } catch (IOException e) {
            return path;
        }
    }

    private void addLocalFile(java.nio.file.Path file, List<FileSourceSplit> splits) {
        long bytes = 0;
        long modifiedMs = 0;
        try {
            BasicFileAttributes attributes =
                    Files.readAttributes(file, BasicFileAttributes.class);
            bytes = attributes.isRegularFile() ? attributes.size() : 0;
            modifiedMs = attributes.lastModifiedTime().toMillis();
        } catch (IOException e) {
            // The reader will report why.
        }
        Path path = LocalPaths.flinkPath(LocalPaths.text(file));
        splits.add(new FileSourceSplit(getNextId(), path, 0, bytes, modifiedMs, bytes));
    }

    private void addFolder(FileStatus folder, FileSystem fs, List<FileSourceSplit> splits)
            throws IOException {
        FileStatus[] found = fs.listStatus(folder.getPath());
        Arrays.sort(found, Comparator.comparing(status -> status.getPath().toString()));
        for (FileStatus status : found) {
            if (!VISIBLE.test(status.getPath())) {
                continue;
            }
            if (!status.isDir()) {
                addFile(status, fs, splits);
            } else if (recursive) {
                addFolder(status, fs, splits);
            }
        }
    }

    private void addFile(FileStatus file, FileSystem fs, List<FileSourceSplit> splits)
            throws IOException {
        if (isWanted(file.getPath().getName())) {
            convertToSourceSplits(file, fs, splits);
        }
    }

    private boolean isWanted(String name) {
        String lower = name.toLowerCase(Locale.ROOT);
        return suffixes.isEmpty() || suffixes.stream().anyMatch(lower::endsWith);
    }
}
