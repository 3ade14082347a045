package org.sage.flink.call;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import org.sage.flink.connector.SecretReference;

/**
 * The API key of the pool, read on the worker: the job graph must not contain it, because everyone
 * with access to the cluster can read the graph.
 */
final class ApiKey {

    private ApiKey() {}

    /**
     * What {@code reference} refers to; without one the environment variable's value, else the
     * content of {@code $SAGE_HOME/keyFile}, else empty.
     *
     * @throws IOException when the file exists and cannot be read
     * @throws IllegalArgumentException when there is a reference, and no secret where it points
     */
    static Optional<String> find(
            Map<String, String> environment, String reference, String keyEnv, String keyFile)
            throws IOException {
        if (!reference.isEmpty()) {
            return Optional.of(SecretReference.resolve(environment, reference));
        }
        String key = environment.getOrDefault(keyEnv, "").strip();
        if (!key.isEmpty()) {
            return Optional.of(key);
        }
        String home = environment.getOrDefault("SAGE_HOME", "");
        if (home.isEmpty() || keyFile.isEmpty()) {
            return Optional.empty();
        }
        Path file = Path.of(home, keyFile);
        if (!Files.exists(file)) {
            return Optional.empty();
        }
        return Optional.of(Files.readString(file).strip()).filter(content -> !content.isEmpty());
    }
}
