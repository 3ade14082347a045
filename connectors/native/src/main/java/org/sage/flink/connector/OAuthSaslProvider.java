package org.sage.flink.connector;

import java.lang.reflect.InvocationTargetException;
import java.security.Provider;
import java.security.Security;
import java.util.Map;
import javax.security.auth.callback.CallbackHandler;
import javax.security.sasl.SaslClient;
import javax.security.sasl.SaslClientFactory;
import javax.security.sasl.SaslException;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.security.oauthbearer.internals.OAuthBearerSaslClient;

/**
 * Makes the OAUTHBEARER logins of all jobs in a JVM, each with the classes of its own job.
 *
 * <p>Kafka registers a factory of its own, but a JVM has one list of them, and Flink loads Kafka's
 * classes once per job: a second job got the factory of the first, which refuses the second's
 * callback handler ("must be castable").
 */
public final class OAuthSaslProvider extends Provider {

    private static final String NAME = "sage SASL/OAUTHBEARER client";

    private OAuthSaslProvider() {
        super(NAME, "1", "logins to Kafka with a token");
        put("SaslClientFactory.OAUTHBEARER", Factory.class.getName());
    }

    /** Takes precedence over Kafka's own provider from now on; has no effect when it already does. */
    static void register() {
        Security.insertProviderAt(new OAuthSaslProvider(), 1);
    }

    /** Made by the JVM, by the name of the class. */
    public static final class Factory implements SaslClientFactory {

        /** As the JVM demands. */
        public Factory() {}

        @Override
        public SaslClient createSaslClient(
                String[] mechanisms,
                String authorizationId,
                String protocol,
                String server,
                Map<String, ?> properties,
                CallbackHandler handler)
                throws SaslException {
            ClassLoader job = handler.getClass().getClassLoader();
            try {
                Class<?> client = Class.forName(OAuthBearerSaslClient.class.getName(), true, job);
                Class<?> callbacks =
                        Class.forName(AuthenticateCallbackHandler.class.getName(), true, job);
                return (SaslClient) client.getConstructor(callbacks).newInstance(handler);
            } catch (InvocationTargetException refused) {
                throw new SaslException("OAUTHBEARER login", refused.getCause());
            } catch (ReflectiveOperationException foreign) {
                return null; // not a handler of Kafka's: the next factory is asked
            }
        }

        @Override
        public String[] getMechanismNames(Map<String, ?> properties) {
            return new String[] {"OAUTHBEARER"};
        }
    }
}
