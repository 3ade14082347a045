/**
 * Near-equal requests of a call that share one answer. What of a record is compared is decided in
 * Python, for both targets: {@code sage_flink/flow/merging}.
 */
package org.sage.flink.merging;
