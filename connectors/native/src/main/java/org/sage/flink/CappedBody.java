package org.sage.flink;

import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;

/**
 * A response body of at most so many bytes; a longer one is not read to its end and given as
 * nothing.
 */
final class CappedBody implements HttpResponse.BodySubscriber<Optional<byte[]>> {

    private final long bytesMax;
    private final CompletableFuture<Optional<byte[]>> body = new CompletableFuture<>();
    private final List<ByteBuffer> parts = new ArrayList<>();
    private long bytes;
    private Flow.Subscription subscription;

    CappedBody(long bytesMax) {
        this.bytesMax = bytesMax;
    }

    @Override
    public CompletionStage<Optional<byte[]>> getBody() {
        return body;
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
        this.subscription = subscription;
        subscription.request(Long.MAX_VALUE);
    }

    @Override
    public void onNext(List<ByteBuffer> received) {
        for (ByteBuffer part : received) {
            bytes += part.remaining();
        }
        if (bytes > bytesMax) {
            parts.clear();
            subscription.cancel();
            body.complete(Optional.empty());
            return;
        }
        parts.addAll(received);
    }

    @Override
    public void onError(Throwable error) {
        body.completeExceptionally(error);
    }

    @Override
    public void onComplete() {
        ByteBuffer whole = ByteBuffer.allocate((int) Math.min(bytes, bytesMax));
        if (bytes <= bytesMax) {
            parts.forEach(whole::put);
        }
        body.complete(Optional.of(whole.array())); // without effect after the cap was hit
    }
}
