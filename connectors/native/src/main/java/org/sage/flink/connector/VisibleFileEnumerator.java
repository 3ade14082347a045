package org.sage.flink.connector;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
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
            FileStatus status = fs.getFileStatus(root);
            if (status.isDir()) {
                addFolder(status, fs, splits);
            } else {
                convertToSourceSplits(status, fs, splits);
            }
        }
        return splits;
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
        String name = file.getPath().getName().toLowerCase(Locale.ROOT);
        if (suffixes.isEmpty() || suffixes.stream().anyMatch(name::endsWith)) {
            convertToSourceSplits(file, fs, splits);
        }
    }
}
