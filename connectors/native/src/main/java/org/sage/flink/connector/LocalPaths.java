package org.sage.flink.connector;

import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.URISyntaxException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CoderResult;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.core.fs.Path;

/**
 * Paths of local files as text that no other path has, the same as {@code path_text} of {@code
 * files.py}: a byte that is not UTF-8 is {@code \xff}, and where a path has such text itself the
 * backslash is {@code \x5c}.
 *
 * <p>The bytes of a path are read from its URI. {@code toString} and {@code Path.of} convert by the
 * charset of the process's locale, and Flink's {@code Path} is UTF-8 wherever it is serialized: each
 * replaces the bytes that it does not know, so that two files would have one name.
 */
final class LocalPaths {

    private static final String SCHEME = "file";

    /** Bytes that are not UTF-8 are never ASCII. */
    private static final Pattern ESCAPED = Pattern.compile("\\\\x(5c|[89a-f][0-9a-f])");

    private static final Pattern LOOKS_ESCAPED =
            Pattern.compile("\\\\(?=x(?:5c|[89a-f][0-9a-f]))");

    private static final String PLAIN =
            "/-_.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    private LocalPaths() {}

    /** The absolute path as text. */
    static String text(java.nio.file.Path file) {
        byte[] name = percentDecoded(file.toUri().getRawPath());
        boolean isFolder = name.length > 1 && name[name.length - 1] == '/';
        return text(ByteBuffer.wrap(name, 0, name.length - (isFolder ? 1 : 0)));
    }

    /** The path with these bytes as text. */
    static String text(ByteBuffer path) {
        CharsetDecoder utf8 = StandardCharsets.UTF_8.newDecoder();
        CharBuffer chars = CharBuffer.allocate(path.remaining());
        StringBuilder text = new StringBuilder();
        while (path.hasRemaining()) {
            CoderResult result = utf8.decode(path, chars, true);
            text.append(LOOKS_ESCAPED.matcher(chars.flip()).replaceAll("\\\\x5c"));
            for (int left = result.isMalformed() ? result.length() : 0; left > 0; left--) {
                text.append(String.format("\\x%02x", path.get()));
            }
            chars.clear();
            utf8.reset();
        }
        return text.toString();
    }

    /** The bytes of the path with this {@link #text}. */
    static byte[] bytes(String text) {
        ByteArrayOutputStream path = new ByteArrayOutputStream(text.length());
        Matcher escaped = ESCAPED.matcher(text);
        int end = 0;
        while (escaped.find()) {
            path.writeBytes(utf8(text.substring(end, escaped.start())));
            path.write(Integer.parseInt(escaped.group(1), 16));
            end = escaped.end();
        }
        path.writeBytes(utf8(text.substring(end)));
        return path.toByteArray();
    }

    /**
     * The file with this {@link #text}, whatever the locale of the process.
     *
     * @throws IllegalArgumentException no file can have this path
     */
    static java.nio.file.Path file(String text) {
        StringBuilder uri = new StringBuilder(SCHEME).append("://");
        for (byte each : bytes(text)) {
            boolean plain = PLAIN.indexOf(each) >= 0;
            uri.append(plain ? String.valueOf((char) each) : String.format("%%%02X", each));
        }
        return java.nio.file.Path.of(URI.create(uri.toString()));
    }

    /** The text as a path of Flink, which serializes it unchanged. */
    static Path flinkPath(String text) {
        return uncheckedPath(SCHEME, text);
    }

    /** Whether {@link #flinkPath} made it, so that it has to be read by {@link #bytes}. */
    static boolean isLocal(Path path) {
        return SCHEME.equals(path.toUri().getScheme());
    }

    /** The path to read from: Flink's own constructor takes a backslash for a slash. */
    static Path root(String root) {
        return root.startsWith("/") ? uncheckedPath(null, root) : new Path(root);
    }

    /** The text of a path that is UTF-8, such as {@link #root}. */
    static String textOf(String path) {
        return LOOKS_ESCAPED.matcher(path).replaceAll("\\\\x5c");
    }

    private static Path uncheckedPath(String scheme, String path) {
        try {
            return new Path(new URI(scheme, null, path, null));
        } catch (URISyntaxException e) {
            throw new IllegalArgumentException("no path: " + path, e);
        }
    }

    private static byte[] percentDecoded(String rawPath) {
        ByteArrayOutputStream path = new ByteArrayOutputStream(rawPath.length());
        for (int at = 0; at < rawPath.length(); at++) {
            if (rawPath.charAt(at) == '%') {
                path.write(Integer.parseInt(rawPath.substring(at + 1, at + 3), 16));
                at += 2;
            } else {
                path.write(rawPath.charAt(at));
            }
        }
        return path.toByteArray();
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
