/**
 * The asynchronous call operator: {@code PoolAsyncFunction} sends each record's request to the
 * model pool and emits one result for it.
 *
 * <p>The work is done by a call executor: one HTTP request for each record, or embedding batches.
 */
package org.sage.flink.call;
