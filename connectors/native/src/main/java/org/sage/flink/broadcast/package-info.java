/**
 * Join of a stream with rows that every subtask has, which change at a checkpoint; the Python twin is
 * {@code sage_flink/flow/stateful/broadcast_state.py}.
 */
package org.sage.flink.broadcast;
