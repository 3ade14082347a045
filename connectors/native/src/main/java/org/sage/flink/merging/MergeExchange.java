package org.sage.flink.merging;

import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.sage.flink.wire.CallRequest;

/** Sends requests that can share an answer to one subtask. Requests of one group alone can. */
public final class MergeExchange {

    private MergeExchange() {}

    /** The requests by their group; it is no keyed stream, for the call keeps no keyed state. */
    public static DataStream<byte[]> wire(DataStream<byte[]> requests) {
        return new DataStream<>(
                requests.getExecutionEnvironment(),
                requests.keyBy(new Group(), Types.STRING).getTransformation());
    }

    /** The group of a request; of one without, its id. */
    private static final class Group implements KeySelector<byte[], String> {

        private static final long serialVersionUID = 1L;

        @Override
        public String getKey(byte[] data) {
            CallRequest request;
            try {
                request = CallRequest.decode(data);
            } catch (IllegalArgumentException e) {
                return ""; // the call itself says what is wrong with it
            }
            return request.isMergeable() ? request.group() : request.requestId();
        }
    }
}
