package compat;

import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.models.EventPosition;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;

/** Where a reader starts. */
final class Positions {
    static final Map<String, Main.Case> CASES = Map.of("positions", Positions::positions);

    private record Start(String name, EventPosition position, int first) {
    }

    private static String positions(Hub hub) throws Exception {
        int n = 6;
        for (int i = 0; i < n; i++) {
            hub.send(0, String.valueOf(i));
            Thread.sleep(20); // so that no two share a millisecond
        }
        List<EventData> events = hub.all(0);
        Check.equal(events.size(), n, "events");
        EventData three = events.get(3);
        for (Start start : List.of(
            new Start("earliest", EventPosition.earliest(), 0),
            new Start("offset, exclusive", EventPosition.fromOffsetString(three.getOffsetString()), 4),
            new Start("sequence number, exclusive", EventPosition.fromSequenceNumber(three.getSequenceNumber()), 4),
            new Start("sequence number, inclusive", EventPosition.fromSequenceNumber(three.getSequenceNumber(), true), 3),
            new Start("enqueued time between two", EventPosition.fromEnqueuedTime(three.getEnqueuedTime().minusMillis(5)), 3),
            new Start("enqueued time", EventPosition.fromEnqueuedTime(three.getEnqueuedTime()), 4))) {
            try (Reader reader = hub.read(0, start.position)) {
                List<Long> got = reader.next(n - start.first).stream().map(EventData::getSequenceNumber).toList();
                Check.equal(got, LongStream.range(start.first, n).boxed().toList(), start.name);
            }
        }
        afterTheLast(hub, events.get(n - 1));
        latest(hub);
        return "the SDK has no inclusive offset or enqueued time";
    }

    /** Starts readers after the last event: they get the next one. */
    private static void afterTheLast(Hub hub, EventData last) throws Exception {
        List<Reader> readers = List.of(EventPosition.fromSequenceNumber(last.getSequenceNumber()),
            EventPosition.fromOffsetString(last.getOffsetString()),
            EventPosition.fromEnqueuedTime(last.getEnqueuedTime())).stream().map(p -> hub.read(0, p)).toList();
        Thread.sleep(1000);
        readers.forEach(Reader::silent);
        hub.send(0, "next");
        for (Reader reader : readers) {
            Check.equal(reader.next(1).get(0).getSequenceNumber(), last.getSequenceNumber() + 1, "after the last event");
            reader.close();
        }
    }

    /**
     * Attaches at the end. Since nothing tells when that has happened, marks are sent until some
     * arrive: no older event may, and no mark be left out.
     */
    private static void latest(Hub hub) throws Exception {
        Reader reader = hub.read(0, EventPosition.latest());
        int[] marks = {0};
        Check.until("marks", Reader.TIMEOUT, () -> {
            hub.send(0, "mark " + marks[0]++);
            Thread.sleep(50);
            return reader.arrived() >= 3;
        });
        List<String> texts = Hub.texts(reader.next(3));
        Check.that(texts.get(0).matches("mark \\d+"), "an old event arrived: %s", texts);
        int first = Integer.parseInt(texts.get(0).substring(5));
        Check.equal(texts, List.of("mark " + first, "mark " + (first + 1), "mark " + (first + 2)), "marks");
    }

    private Positions() {
    }
}
