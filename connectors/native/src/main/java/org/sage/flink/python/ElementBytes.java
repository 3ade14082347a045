package org.sage.flink.python;

import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/** The wire form of an element: all elements are {@code byte[]}, whatever their type parameter is. */
final class ElementBytes {

    private ElementBytes() {}

    static byte[] bytes(StreamRecord<?> element) {
        return (byte[]) element.getValue();
    }

    /** A copy of the element that has these bytes. */
    @SuppressWarnings("unchecked")
    static <IN> StreamRecord<IN> with(StreamRecord<IN> element, byte[] bytes) {
        return element.copy((IN) (Object) bytes);
    }
}
