package org.sage.flink.pool;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.sage.flink.testing.CallHarness.EMBED;
import static org.sage.flink.testing.CallHarness.config;

import org.junit.jupiter.api.Test;
import org.sage.flink.call.PoolAsyncFunction;

/** The settings of a call and its back-off. */
class PoolConfigTest {

    @Test
    void invalidSettingsAreRejectedAtBuildTime() {
        assertRefused("\"capacity\":0", "step 'step': capacity must be at least 1, got 0");
        assertRefused("\"mode\":\"embed\"", "step 'step': mode embed needs a model");
        assertRefused("\"mode\":\"chat\"", "step 'step': mode must be post or embed, got 'chat'");
        Exception error =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> new PoolAsyncFunction(config("http://x", "\"retries\":3")));
        assertTrue(error.getMessage().startsWith("step 'step': unknown setting 'retries'"));
    }

    @Test
    void requestsInFlightFollowTheCapacity() {
        assertEquals(4, of(EMBED).requestsMax());
        assertEquals(16, of(EMBED + ",\"capacity\":512").requestsMax());
        assertEquals(64, of(EMBED + ",\"items_max\":1").requestsMax());
        assertEquals(2, of(EMBED + ",\"requests_max\":2").requestsMax());
    }

    @Test
    void slackIsTheTimeoutUnlessItIsSet() {
        assertEquals(7_000, of("\"timeout_ms\":7000").slackMs());
        assertEquals(100, of("\"slack_ms\":100").slackMs());
    }

    @Test
    void backoffGrowsIsJitteredAndNeverUndercutsRetryAfter() {
        assertEquals(0, Backoff.delayMs(1, 0, 0));
        assertEquals(50, Backoff.delayMs(1, 0, 0.5));
        assertEquals(400, Backoff.delayMs(4, 0, 0.5));
        assertEquals(2_500, Backoff.delayMs(50, 0, 0.5));
        assertEquals(3_050, Backoff.delayMs(1, 3_000, 0.5));
    }

    private static PoolConfig of(String more) {
        return PoolConfig.of(config("http://x", more));
    }

    private static void assertRefused(String setting, String message) {
        Exception error =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> new PoolAsyncFunction(config("http://x", setting)));
        assertEquals(message, error.getMessage());
    }
}
