/**
 * The wire forms: bytes that cross between Python and the JVM, and are also in checkpoints.
 *
 * <p>Everything that crosses is {@code byte[]} with MessagePack content, and has a counterpart in
 * {@code sage_flink/flow} and {@code sage_flink/common}. A change here breaks that counterpart and
 * old checkpoints: add fields at the end only, and change both sides in the same commit.
 */
package org.sage.flink.wire;
