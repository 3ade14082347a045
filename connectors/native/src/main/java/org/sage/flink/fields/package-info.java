/**
 * Operators on the fields of a record's value that need no Python: each is the twin of a function in
 * {@code sage_flink/operators}.
 */
package org.sage.flink.fields;
