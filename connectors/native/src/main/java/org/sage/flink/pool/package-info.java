/**
 * The HTTP client of the model pool: retries, endpoint selection, keep-alive connections, metrics.
 *
 * <p>A {@link org.sage.flink.pool.PoolClient} belongs to one subtask and owns one event loop. All
 * state of this package lives on that loop, without locks: enter it through {@code
 * PoolClient.run}, and never block there.
 */
package org.sage.flink.pool;
