/** Python stages on Flink: how long they collect records before a round trip to their worker. */
package org.sage.flink.python;
