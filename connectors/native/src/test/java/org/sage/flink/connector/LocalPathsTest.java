package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSourceSplit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.sage.flink.wire.WireRecord;

@Timeout(60)
class LocalPathsTest {

    private static final String[] PIECES = {
        "\\", "x", "5", "c", "8", "f", "/", "\u00E9", "\u00FF", "\u00E2", "\u0082", "\u00AC", "\u00ED"
    };

    @TempDir Path folder;

    @Test
    void everyPathHasATextOfItsOwnFromWhichItIsFoundAgain() {
        Random random = new Random(7);
        Set<String> texts = new HashSet<>();
        Set<String> paths = new HashSet<>();
        for (int count = 0; count < 20_000; count++) {
            StringBuilder latin1 = new StringBuilder();
            for (int length = random.nextInt(9); length > 0; length--) {
                latin1.append(PIECES[random.nextInt(PIECES.length)]);
            }
            byte[] path = latin1.toString().getBytes(StandardCharsets.ISO_8859_1);
            String text = LocalPaths.text(ByteBuffer.wrap(path));

            assertArrayEquals(path, LocalPaths.bytes(text));
            texts.add(text);
            paths.add(latin1.toString());
        }
        assertEquals(paths.size(), texts.size());
    }

    @Test
    void aFileIsFoundByItsText() throws IOException {
        for (String name : List.of("a%20b.md", "%FF%FE.md", "%5Cxff.md", "50%25.md", "%F0%9F%91%8D")) {
            Path file = Files.writeString(Path.of(URI.create(folder.toUri() + name)), name);

            assertEquals(file, LocalPaths.file(LocalPaths.text(file)));
        }
    }

    @Test
    void namesDoNotDependOnTheLocale() throws Exception {
        for (String name : List.of("%FF.md", "%FE.md", "gr%C3%B6%C3%9Fe.md")) {
            Files.writeString(Path.of(URI.create(folder.toUri() + name)), name);
        }
        List<String> own = records(utf8(folder));

        List<String> inLocaleC = runInLocaleC(utf8(folder));

        assertEquals(3, own.size());
        assertTrue(inLocaleC.get(0).startsWith("ANSI"), inLocaleC.toString());
        assertEquals(own, inLocaleC.subList(1, inLocaleC.size()));
    }

    /** Prints the charset of this process's paths, and the records of a folder. */
    public static void main(String[] folder) throws IOException {
        System.out.println(System.getProperty("sun.jnu.encoding"));
        records(folder[0]).forEach(System.out::println);
    }

    private List<String> runInLocaleC(String folder) throws Exception {
        ProcessBuilder process =
                new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-cp",
                        System.getProperty("java.class.path"),
                        LocalPathsTest.class.getName(),
                        folder);
        process.environment().put("LC_ALL", "C");
        Process running = process.redirectErrorStream(true).start();
        String output = new String(running.getInputStream().readAllBytes());
        assertEquals(0, running.waitFor(), output);
        return output.lines().toList();
    }

    /** Id and value of each record, in hex. */
    private static List<String> records(String folder) throws IOException {
        WholeFileFormat format = new WholeFileFormat(folder, 1000);
        var root = new org.apache.flink.core.fs.Path[] {LocalPaths.root(folder)};
        return new VisibleFileEnumerator(List.of(), true)
                .enumerateSplits(root, 1).stream().map(split -> read(format, split)).toList();
    }

    private static String read(WholeFileFormat format, FileSourceSplit split) {
        try {
            byte[] bytes =
                    format.createReader(new Configuration(), split).readBatch().next().getRecord();
            WireRecord record = WireRecord.decode(bytes);
            byte[] id = record.id().getBytes(StandardCharsets.UTF_8);
            return HexFormat.of().formatHex(id) + " " + HexFormat.of().formatHex(record.value());
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The path as text, whatever the locale of the tests; its bytes are UTF-8. */
    static String utf8(Path path) {
        return new String(LocalPaths.bytes(LocalPaths.text(path)), StandardCharsets.UTF_8);
    }
}
