package org.sage.flink.call;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ApiKeyTest {

    @Test
    void theKeyIsTheVariableElseTheFileElseEmpty(@TempDir Path home) throws IOException {
        Files.writeString(home.resolve("key"), "from-file\n");
        Map<String, String> environment = new TreeMap<>(Map.of("SAGE_HOME", home.toString()));

        assertEquals("from-file", ApiKey.find(environment, "", "KEY", "key").orElseThrow());
        assertTrue(ApiKey.find(environment, "", "KEY", "absent").isEmpty());
        environment.put("KEY", "from-variable");
        assertEquals("from-variable", ApiKey.find(environment, "", "KEY", "key").orElseThrow());
        assertTrue(ApiKey.find(Map.of(), "", "KEY", "key").isEmpty());
    }

    @Test
    void aReferenceComesFirst(@TempDir Path home) throws IOException {
        Path file = Files.writeString(home.resolve("k"), "named\n");
        Map<String, String> environment = Map.of("KEY", "other", "POOL_KEY", "mine");

        assertEquals("named", ApiKey.find(environment, "file:" + file, "KEY", "").orElseThrow());
        assertEquals("mine", ApiKey.find(environment, "env:POOL_KEY", "KEY", "").orElseThrow());
        Exception error =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> ApiKey.find(environment, "env:ABSENT", "KEY", ""));
        assertTrue(error.getMessage().contains("variable ABSENT is not set"));
    }
}
