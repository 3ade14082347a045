package org.sage.flink.connector;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.config.ConfigException;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.config.types.Password;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.security.JaasContext;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SecretProviderTest {

    private final SecretProvider provider =
            new SecretProvider(Map.of("PASSWORD", " sword\"fi\\sh\n", "BLANK", " "));

    @Test
    void aVariableIsResolvedWithoutWhiteSpaceAtItsEnds() {
        assertEquals("sword\"fi\\sh", get("env", "PASSWORD"));
    }

    @Test
    void aFileIsResolvedWithoutItsLineEnd(@TempDir Path folder) throws IOException {
        Path file = Files.writeString(folder.resolve("a b:c"), "secret\n");

        assertEquals("secret", get("file", file.toString()));
    }

    @Test
    void aSecretInJaasTextIsQuoted() {
        assertEquals("sword\\\"fi\\\\sh", get("jaas-env", "PASSWORD"));
    }

    @Test
    void anAbsentVariableOrFileIsNamedInTheError(@TempDir Path folder) {
        Path absent = folder.resolve("absent");

        assertTrue(error("env", "ABSENT").contains("ABSENT is not set"));
        assertTrue(error("env", "BLANK").contains("BLANK is not set"));
        assertTrue(error("file", absent.toString()).contains(absent + " does not exist"));
        assertTrue(error("vault", "x").contains("env:NAME or file:/PATH"));
    }

    @Test
    void kafkasClientResolvesAReferenceWhenItIsMadeAndTheJobHoldsNone(@TempDir Path folder)
            throws IOException {
        Path file = Files.writeString(folder.resolve("password"), "a\"b\\c{$}\n");
        String module =
                "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram.ScramLoginModule";
        Map<String, String> properties =
                Map.of(
                        "config.providers", "sage",
                        "config.providers.sage.class", SecretProvider.class.getName(),
                        "security.protocol", "SASL_SSL",
                        "sasl.mechanism", "SCRAM-SHA-512",
                        "sasl.jaas.config",
                                module
                                        + " required username=\"u\" password=\"${sage:jaas-file:"
                                        + file
                                        + "}\";");
        Map<String, Object> client = new HashMap<>(properties);
        client.put("bootstrap.servers", "b:1");
        client.put("key.deserializer", "org.apache.flink.kafka.shaded.org.apache.kafka.common.serialization.ByteArrayDeserializer");
        client.put("value.deserializer", client.get("key.deserializer"));

        Password jaas = new ConsumerConfig(client).getPassword("sasl.jaas.config");
        var options =
                JaasContext.loadClientContext(Map.of("sasl.jaas.config", jaas))
                        .configurationEntries()
                        .get(0)
                        .getOptions();

        assertEquals("a\"b\\c{$}", options.get("password"));
        ByteArrayOutputStream job = new ByteArrayOutputStream();
        try (ObjectOutputStream out = new ObjectOutputStream(job)) {
            out.writeObject(KafkaConnector.source("b:1", "t", "g", "latest", false, properties));
        }
        assertFalse(job.toString(StandardCharsets.ISO_8859_1).contains("a\"b"));
    }

    @Test
    void aTokenUrlOfAConnectionMayBeCalledByThisJvm() {
        String allowed =
                "org.apache.flink.kafka.shaded.org.apache.kafka.sasl.oauthbearer.allowed.urls";
        System.setProperty(allowed, "https://other/token");

        provider.configure(Map.of("token.url", "https://login/token"));
        provider.configure(Map.of("token.url", "https://login/token"));
        provider.configure(Map.of());

        assertEquals("https://other/token,https://login/token", System.getProperty(allowed));
        System.clearProperty(allowed);
    }

    private String get(String path, String key) {
        return provider.get(path, Set.of(key)).data().get(key);
    }

    private String error(String path, String key) {
        return assertThrows(ConfigException.class, () -> get(path, key)).getMessage();
    }
}
