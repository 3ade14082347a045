/**
 * Native connectors: Kafka topics and whole files as wire records, and the operator that turns the
 * output of a bounded job into one Kafka transaction.
 */
package org.sage.flink.connector;
