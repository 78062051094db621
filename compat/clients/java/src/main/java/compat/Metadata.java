package compat;

import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventHubProperties;
import com.azure.messaging.eventhubs.PartitionProperties;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.ReceiveOptions;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;

/** What the broker tells of a hub and of its partitions. */
final class Metadata {
    static final Map<String, Main.Case> CASES = Map.of("hub-properties", Metadata::hubProperties,
        "partition-properties", Metadata::partitionProperties, "last-enqueued", Metadata::lastEnqueued);

    private static String hubProperties(Hub hub) {
        for (EventHubProperties p : List.of(hub.consumer().getEventHubProperties(), hub.producer().getEventHubProperties())) {
            Check.equal(p.getName(), hub.name, "name");
            Check.equal(p.getPartitionIds().stream().toList(), List.of("0", "1", "2", "3"), "partition ids");
            Duration age = Duration.between(p.getCreatedAt(), Instant.now());
            Check.that(age.toMillis() > -1000 && age.toMinutes() < 10, "created at %s", p.getCreatedAt());
        }
        Check.equal(hub.producer().getPartitionIds().stream().toList(), List.of("0", "1", "2", "3"), "partition ids");
        return "";
    }

    private static String partitionProperties(Hub hub) throws Exception {
        same(hub, hub.consumer().getPartitionProperties("1"), -1, -1, "-1", Instant.parse("0001-01-01T00:00:00Z"), true);
        hub.send(1, "a", "b", "c");
        EventData last = hub.all(1).get(2);
        same(hub, hub.producer().getPartitionProperties("1"), 0, 2, last.getOffsetString(), last.getEnqueuedTime(), false);
        return "";
    }

    private static void same(Hub hub, PartitionProperties p, long first, long last, String offset, Instant time, boolean empty) {
        Check.equal(List.of(p.getEventHubName(), p.getId()), List.of(hub.name, "1"), "names");
        Check.equal(
            List.of(p.getBeginningSequenceNumber(), p.getLastEnqueuedSequenceNumber(), p.getLastEnqueuedOffset(), p.getLastEnqueuedTime(), p.isEmpty()),
            List.of(first, last, offset, time, empty), "first, last, offset, time, empty");
    }

    private static String lastEnqueued(Hub hub) throws Exception {
        hub.send(0, "a", "b", "c");
        try (Reader reader = hub.read(0, EventPosition.earliest(), new ReceiveOptions().setTrackLastEnqueuedEventProperties(true))) {
            reader.next(3);
            sameAsAsked(hub, reader, 2);
            hub.send(0, "d");
            reader.next(1);
            sameAsAsked(hub, reader, 3);
        }
        // Who does not ask gets none.
        try (Reader plain = hub.read(0, EventPosition.earliest())) {
            plain.next(4);
            Check.equal(plain.lastEnqueued(), null, "properties that nobody asked for");
        }
        return "";
    }

    private static void sameAsAsked(Hub hub, Reader reader, long sequenceNumber) {
        PartitionProperties p = hub.consumer().getPartitionProperties("0");
        var got = reader.lastEnqueued();
        Check.equal(List.of(got.getSequenceNumber(), got.getOffsetString(), got.getEnqueuedTime()),
            List.of(sequenceNumber, p.getLastEnqueuedOffset(), p.getLastEnqueuedTime()), "last number, offset, time");
        Check.that(Duration.between(got.getRetrievalTime(), Instant.now()).abs().toSeconds() < 60, "retrieved at %s", got.getRetrievalTime());
    }

    private Metadata() {
    }
}
