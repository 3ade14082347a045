/**
 * Interval join of two keyed streams by event time; the Python twin is {@code
 * sage_flink/flow/stateful/join_state.py}.
 */
package org.sage.flink.join;
