package org.sage.flink.connector;

import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Map;

/**
 * Resolves {@code env:NAME}, an environment variable, or {@code file:/PATH}, a file, to the secret
 * in it, in the process that needs it: the job must not hold it, because everyone with access to
 * the cluster can read the job. An exception names the variable or the file, never a part of the
 * secret.
 */
public final class SecretReference {

    private static final String ENV = "env:";
    private static final String FILE = "file:";

    private SecretReference() {}

    /**
     * The secret, without white space at its ends.
     *
     * @throws IllegalArgumentException when the variable or file does not exist here or is empty
     */
    public static String resolve(Map<String, String> environment, String reference) {
        if (reference.startsWith(ENV)) {
            String name = reference.substring(ENV.length());
            String secret = environment.getOrDefault(name, "").strip();
            require(!secret.isEmpty(), "the environment variable " + name + " is not set");
            return secret;
        }
        require(reference.startsWith(FILE + "/"), "a reference must be env:NAME or file:/PATH;");
        String path = reference.substring(FILE.length());
        String secret = read(path);
        require(!secret.isEmpty(), path + " is empty");
        return secret;
    }

    private static String read(String path) {
        try {
            return Files.readString(Path.of(path)).strip();
        } catch (NoSuchFileException absent) {
            throw invalid(path + " does not exist");
        } catch (CharacterCodingException binary) {
            throw invalid(path + " is not text");
        } catch (IOException unreadable) {
            throw invalid(path + " cannot be read");
        }
    }

    private static void require(boolean condition, String message) {
        if (!condition) {
            throw invalid(message);
        }
    }

    private static IllegalArgumentException invalid(String message) {
        return new IllegalArgumentException(
                message + " in this process; a connection of the job refers to it");
    }
}
