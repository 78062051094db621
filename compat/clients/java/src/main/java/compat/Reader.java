package compat;

import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventHubConsumerAsyncClient;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.LastEnqueuedEventProperties;
import com.azure.messaging.eventhubs.models.PartitionEvent;
import com.azure.messaging.eventhubs.models.ReceiveOptions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import reactor.core.Disposable;
import reactor.core.Exceptions;

/** A subscription to one partition that keeps what arrives. */
final class Reader implements AutoCloseable {
    /** How long an event may take to arrive that is there. */
    static final Duration TIMEOUT = Duration.ofSeconds(20);

    private final EventHubConsumerAsyncClient client;
    private final Disposable subscription;
    private final List<PartitionEvent> events = new ArrayList<>();
    private Throwable error;
    private LastEnqueuedEventProperties lastEnqueued;

    Reader(EventHubConsumerAsyncClient client, String partition, EventPosition from, ReceiveOptions how) {
        this.client = client;
        subscription = client.receiveFromPartition(partition, from, how).subscribe(this::arrived, this::failed);
    }

    private synchronized void arrived(PartitionEvent event) {
        events.add(event);
    }

    private synchronized void failed(Throwable e) {
        error = Exceptions.unwrap(e);
    }

    private synchronized Throwable failure() {
        return error;
    }

    synchronized int arrived() {
        return events.size();
    }

    /** The runtime metrics that came with the last event that next returned. */
    synchronized LastEnqueuedEventProperties lastEnqueued() {
        return lastEnqueued;
    }

    /** Returns exactly n events, or fails. */
    List<EventData> next(int n) throws Exception {
        try {
            Check.until(n + " events", TIMEOUT, () -> failure() != null || arrived() >= n);
        } catch (AssertionError e) {
            throw new AssertionError(e.getMessage() + ": " + arrived() + " arrived", e);
        }
        synchronized (this) {
            if (events.size() < n) {
                throw new IllegalStateException("the reader met an error", error);
            }
            List<PartitionEvent> taken = events.subList(0, n);
            lastEnqueued = taken.get(n - 1).getLastEnqueuedEventProperties();
            List<EventData> out = taken.stream().map(PartitionEvent::getData).toList();
            taken.clear();
            return out;
        }
    }

    /** Returns the error that the subscription meets. */
    Throwable error() throws Exception {
        Check.until("an error", TIMEOUT, () -> failure() != null || arrived() > 0);
        Check.that(failure() != null, "an event arrived where an error was due");
        return failure();
    }

    /** Fails if an event or an error has arrived. */
    void silent() {
        Check.that(failure() == null, "the reader met an error: %s", failure());
        Check.equal(arrived(), 0, "events that were not due");
    }

    @Override
    public void close() {
        subscription.dispose();
        client.close();
    }
}
