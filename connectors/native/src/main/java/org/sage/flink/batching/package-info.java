/**
 * Batching: {@code MicroBatchOperator} collects wire records for a sink; {@code EmbeddingBatcher}
 * collects the texts of records in flight into embedding requests.
 *
 * <p>The operator keeps its pending records as Flink state. The batcher needs no state of its own:
 * its texts belong to calls in flight, which the async operator checkpoints.
 */
package org.sage.flink.batching;
