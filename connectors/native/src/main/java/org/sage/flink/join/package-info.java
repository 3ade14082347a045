/**
 * Interval and temporal joins of two keyed streams by event time; the Python twins are {@code
 * sage_flink/flow/stateful/join_state.py} and {@code temporal_state.py}.
 */
package org.sage.flink.join;
