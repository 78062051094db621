package compat;

import com.azure.core.amqp.AmqpRetryOptions;
import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventHubClientBuilder;
import com.azure.messaging.eventhubs.EventHubConsumerAsyncClient;
import com.azure.messaging.eventhubs.EventHubConsumerClient;
import com.azure.messaging.eventhubs.EventHubProducerClient;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.ReceiveOptions;
import com.azure.messaging.eventhubs.models.SendOptions;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.function.UnaryOperator;

/** The event hub of a case, and what cases do with it. All that it opens is closed with it. */
final class Hub {
    static final int PARTITIONS = 4;
    static final String GROUP = EventHubClientBuilder.DEFAULT_CONSUMER_GROUP_NAME;

    String name;
    String connection = System.getenv("MILLRACE_CONNECTION_STRING");
    String group = GROUP;
    /** What clients are opened with beside the connection string. */
    UnaryOperator<EventHubClientBuilder> options = builder -> builder;

    private EventHubProducerClient producer;
    private EventHubConsumerClient consumer;
    private final Deque<AutoCloseable> open = new ArrayDeque<>();

    Hub(String name) {
        this.name = name;
    }

    /** Makes the SDK tell the first error, instead of trying again until the case's time is over. */
    void tryOnce() {
        options = builder -> builder.retryOptions(new AmqpRetryOptions().setMaxRetries(0).setTryTimeout(Duration.ofSeconds(20)));
    }

    private EventHubClientBuilder builder() {
        return options.apply(new EventHubClientBuilder().connectionString(connection, name).consumerGroup(group));
    }

    synchronized <T extends AutoCloseable> T keep(T thing) {
        open.push(thing);
        return thing;
    }

    EventHubProducerClient producer() {
        if (producer == null) {
            producer = keep(builder().buildProducerClient());
        }
        return producer;
    }

    /** The synchronous consumer, for properties too. */
    EventHubConsumerClient consumer() {
        if (consumer == null) {
            consumer = keep(builder().buildConsumerClient());
        }
        return consumer;
    }

    /** Starts to read a partition, on a connection of its own. */
    Reader read(Object partition, EventPosition from) {
        return read(partition, from, new ReceiveOptions());
    }

    Reader read(Object partition, EventPosition from, ReceiveOptions how) {
        EventHubConsumerAsyncClient client = builder().buildAsyncConsumerClient();
        return keep(new Reader(client, String.valueOf(partition), from, how));
    }

    /** Sends events as one batch. */
    void send(Object partition, EventData... events) {
        producer().send(List.of(events), new SendOptions().setPartitionId(String.valueOf(partition)));
    }

    void send(Object partition, String... texts) {
        send(partition, events(texts));
    }

    static EventData[] events(String... texts) {
        return List.of(texts).stream().map(EventData::new).toArray(EventData[]::new);
    }

    /**
     * Receives every event of a partition, as its properties count them, and checks that sequence
     * numbers have no gap, offsets grow and time never runs backwards.
     */
    List<EventData> all(int partition) throws Exception {
        var p = consumer().getPartitionProperties(String.valueOf(partition));
        if (p.isEmpty()) {
            return List.of();
        }
        List<EventData> events;
        try (Reader reader = read(partition, EventPosition.earliest())) {
            events = reader.next((int) (p.getLastEnqueuedSequenceNumber() - p.getBeginningSequenceNumber() + 1));
        }
        EventData before = null;
        for (int i = 0; i < events.size(); i++) {
            EventData e = events.get(i);
            Check.equal(e.getSequenceNumber(), p.getBeginningSequenceNumber() + i, "sequence number");
            Check.that(Duration.between(e.getEnqueuedTime(), Instant.now()).abs().toMinutes() < 5, "enqueued at %s", e.getEnqueuedTime());
            if (before != null) {
                Check.that(Long.parseLong(e.getOffsetString()) > Long.parseLong(before.getOffsetString()), "offsets grow");
                Check.that(!e.getEnqueuedTime().isBefore(before.getEnqueuedTime()), "time runs forwards");
            }
            before = e;
        }
        return events;
    }

    static List<String> texts(List<EventData> events) {
        return events.stream().map(EventData::getBodyAsString).toList();
    }

    void close() {
        for (AutoCloseable thing; (thing = next()) != null;) {
            try {
                thing.close();
            } catch (Exception e) {
                System.err.println("closing: " + e);
            }
        }
    }

    private synchronized AutoCloseable next() {
        return open.poll();
    }
}
