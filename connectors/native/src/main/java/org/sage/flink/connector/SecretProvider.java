package org.sage.flink.connector;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.config.ConfigData;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.config.ConfigException;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.config.provider.ConfigProvider;

/**
 * Resolves a {@link SecretReference} in the properties of a Kafka client, written as {@code
 * ${sage:env:NAME}} or {@code ${sage:file:/PATH}}, when the client is made. With {@code jaas-}
 * before it, the secret is quoted for a string of JAAS.
 *
 * <p>Kafka's own providers keep the line end of a file, and leave the reference to an absent
 * variable as the password.
 */
public final class SecretProvider implements ConfigProvider {

    private static final String JAAS = "jaas-";

    /** URLs that the OAuth client may call; it refuses all others. */
    private static final String ALLOWED_URLS =
            "org.apache.flink.kafka.shaded.org.apache.kafka.sasl.oauthbearer.allowed.urls";

    private final Map<String, String> environment;

    /** Made by Kafka's client, by the name of the class. */
    public SecretProvider() {
        this(System.getenv());
    }

    SecretProvider(Map<String, String> environment) {
        this.environment = environment;
    }

    /**
     * With {@code token.url}, prepares this JVM for OAUTHBEARER and allows it to call that URL: it
     * is in the user's connection.
     */
    @Override
    public void configure(Map<String, ?> parameters) {
        Object url = parameters.get("token.url");
        if (url == null) {
            return;
        }
        OAuthSaslProvider.register();
        synchronized (SecretProvider.class) {
            String allowed = System.getProperty(ALLOWED_URLS, "");
            if (!Arrays.asList(allowed.split(",")).contains(url.toString())) {
                System.setProperty(ALLOWED_URLS, allowed.isEmpty() ? "" + url : allowed + "," + url);
            }
        }
    }

    @Override
    public ConfigData get(String path) {
        throw new ConfigException("a reference must be env:NAME or file:/PATH");
    }

    @Override
    public ConfigData get(String path, Set<String> keys) {
        boolean quoted = path.startsWith(JAAS);
        String kind = quoted ? path.substring(JAAS.length()) : path;
        Map<String, String> found = new HashMap<>();
        for (String key : keys) {
            try {
                String secret = SecretReference.resolve(environment, kind + ":" + key);
                found.put(key, quoted ? quote(secret, key) : secret);
            } catch (IllegalArgumentException invalid) {
                throw new ConfigException(invalid.getMessage());
            }
        }
        return new ConfigData(found);
    }

    @Override
    public void close() {}

    private static String quote(String secret, String key) {
        if (secret.lines().count() > 1) {
            throw new IllegalArgumentException(key + " has more than one line");
        }
        return secret.replace("\\", "\\\\").replace("\"", "\\\"");
    }
}
