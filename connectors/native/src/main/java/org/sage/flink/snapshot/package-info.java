/** Sinks whose rows are visible once a checkpoint that has them is complete. */
package org.sage.flink.snapshot;
