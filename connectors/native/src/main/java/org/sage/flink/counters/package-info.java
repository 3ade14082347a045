/**
 * Record accounting: exact counts of a job's records, over restarts and savepoints.
 *
 * <p>A {@code RecordCounterOperator} after each step counts and sends deltas; the single {@code
 * JobCountersOperator} sums them, keeps the sums as Flink state, and publishes them.
 */
package org.sage.flink.counters;
