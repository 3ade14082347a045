/**
 * The Flink operators and connectors of sage that Python cannot express.
 *
 * <p>Layers, the lower ones first: {@code wire} (bytes that cross between Python and the JVM),
 * {@code pool} (client of the model pool), {@code batching}, {@code call}; {@code counters} and
 * {@code connector} use {@code wire} alone.
 */
package org.sage.flink;
