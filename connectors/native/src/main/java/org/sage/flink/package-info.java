/**
 * The operators of sage that Python cannot express, and the connectors it cannot reach.
 *
 * <p>Everything that crosses between Python and Java is {@code byte[]}; its content is MessagePack.
 * A record is the array of six of {@link org.sage.flink.WireRecord}; a call is {@link
 * org.sage.flink.Question} and its answer {@link org.sage.flink.Envelope}. Classes that Python
 * constructs take strings, numbers, booleans and lists only.
 */
package org.sage.flink;
