package org.sage.flink.call;

import java.util.List;
import java.util.Map;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.sage.flink.wire.CallRequest;
import org.sage.flink.wire.DerivedId;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.RecordMapOperator;

/**
 * Operator that makes the {@link CallRequest} of each record where a template is the whole request.
 * A delete's has an empty body, so no call is made for it. The Python twin is {@code call_request}
 * in {@code sage_flink/flow/call_requests.py}.
 */
public final class CallRequestOperator extends RecordMapOperator {

    private static final long serialVersionUID = 1L;

    private static final byte[] NO_BODY = {};
    private static final int BODY_BYTES_MAX = 65 << 20;

    private final RequestConfig config;
    private transient RequestHeaders headers;

    private CallRequestOperator(RequestConfig config, FailedRecords failed) {
        super(failed, List.of());
        this.config = config;
    }

    /**
     * Appends this operator to the stream.
     *
     * @param configJson see {@link RequestConfig}
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String configJson, String run) {
        RequestConfig config = RequestConfig.of(configJson);
        FailedRecords failed = new FailedRecords(config.step(), config.job(), run);
        return new CallRequestOperator(config, failed).wire(in, config.step() + ".request");
    }

    @Override
    protected byte[] map(byte[] record, RecordFields.Found found) {
        if (headers == null) {
            headers = new RequestHeaders(config);
        }
        byte[] body = found.isDelete() ? NO_BODY : config.template().render(record, found);
        if (body.length > BODY_BYTES_MAX) {
            throw new IllegalArgumentException(
                    "the request has "
                            + body.length
                            + " bytes, at most "
                            + BODY_BYTES_MAX
                            + " can be sent");
        }
        String id = DerivedId.of(found.id(), config.job() + "/" + config.step(), 0);
        Map<String, String> sent = headers.of(found, id);
        return new CallRequest(record, id, body, sent).encode();
    }
}
