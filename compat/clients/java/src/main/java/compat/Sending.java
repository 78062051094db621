package compat;

import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventDataBatch;
import com.azure.messaging.eventhubs.models.CreateBatchOptions;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.SendOptions;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;

/** How events get into partitions, and that they come back whole. */
final class Sending {
    static final Map<String, Main.Case> CASES = Map.of(
        "single", Sending::single, "batch", Sending::batch, "partition-id", Sending::partitionId,
        "partition-key", Sending::partitionKey, "round-robin", Sending::roundRobin,
        "one-byte", Sending::oneByte, "large", Sending::large);

    private static String single(Hub hub) throws Exception {
        List<String> want = IntStream.range(0, 10).mapToObj(i -> "single-" + i).toList();
        for (String text : want) {
            hub.send(0, text);
        }
        Check.equal(Hub.texts(hub.all(0)), want, "bodies");
        // The synchronous consumer asks for a number of events.
        List<String> got = new ArrayList<>();
        hub.consumer().receiveFromPartition("0", want.size(), EventPosition.earliest(), Reader.TIMEOUT)
            .forEach(e -> got.add(e.getData().getBodyAsString()));
        Check.equal(got, want, "bodies that the synchronous consumer gets");
        return "";
    }

    private static String batch(Hub hub) throws Exception {
        List<String> want = new ArrayList<>(List.of("before"));
        hub.send(1, "before");
        EventDataBatch batch = hub.producer().createBatch(new CreateBatchOptions().setPartitionId("1"));
        for (int i = 0; i < 500; i++) {
            String text = "batch-" + i + "-" + "x".repeat(i);
            want.add(text);
            Check.that(batch.tryAdd(new EventData(text)), "the batch is full");
        }
        Check.equal(batch.getCount(), 500, "events of the batch");
        hub.producer().send(batch);
        List<EventData> events = hub.all(1);
        Check.equal(Hub.texts(events), want, "bodies");
        long times = events.stream().skip(1).map(EventData::getEnqueuedTime).distinct().count();
        Check.equal(times, 1L, "enqueued times of one batch");
        return "";
    }

    private static String partitionId(Hub hub) throws Exception {
        hub.send(2, "to two", "also");
        Check.equal(Hub.texts(hub.all(2)), List.of("to two", "also"), "bodies");
        List<Reader> others = List.of(0, 1, 3).stream().map(p -> hub.read(p, EventPosition.earliest())).toList();
        Thread.sleep(1000);
        others.forEach(Reader::silent);
        return "";
    }

    private static String partitionKey(Hub hub) throws Exception {
        List<String> ascii = List.of("7", "131", "7149583486996073602", "FWfAT", "sOdeEAsyQoEuEFPGerWO", "!c*_!I@1^c", "$0cb",
            "-4189260826195535198", "p4*!jioeO/z-!-;w:dh", "alphabet");
        // What the other SDKs' hash names for keys beyond ASCII. This SDK's own (PartitionResolver) takes
        // bytes for signed, and differs from them for some of these keys.
        Map<String, Integer> others = Map.of("clé à molette", 2, "名前", 0, "ключ", 2, "größe", 3);
        List<String> keys = new ArrayList<>(ascii);
        keys.addAll(others.keySet());
        Map<String, List<String>> want = new HashMap<>();
        Map<String, List<String>> got = new HashMap<>();
        for (int round = 0; round < 3; round++) {
            for (String key : keys) {
                List<String> texts = List.of(key + "/" + round + "/a", key + "/" + round + "/b");
                hub.producer().send(texts.stream().map(EventData::new).toList(), new SendOptions().setPartitionKey(key));
                want.computeIfAbsent(key, k -> new ArrayList<>()).addAll(texts);
            }
        }
        List<String> differ = new ArrayList<>();
        for (int p = 0; p < Hub.PARTITIONS; p++) {
            for (EventData e : hub.all(p)) {
                String key = e.getPartitionKey();
                Check.equal(p, others.containsKey(key) ? others.get(key) : hashed(key), "partition of key " + key);
                if (hashed(key) != p && !differ.contains(key)) {
                    differ.add(key);
                }
                got.computeIfAbsent(key, k -> new ArrayList<>()).add(e.getBodyAsString());
            }
        }
        Check.equal(got, want, "bodies by key");
        return differ.isEmpty() ? "" : "beyond ASCII the SDK's buffered producer names other partitions than the other SDKs do";
    }

    /** The partition that the SDK's buffered producer names. The class is not public. */
    private static int hashed(String key) throws Exception {
        Class<?> resolver = Class.forName("com.azure.messaging.eventhubs.PartitionResolver");
        var constructor = resolver.getDeclaredConstructor();
        constructor.setAccessible(true);
        Method assign = resolver.getDeclaredMethod("assignForPartitionKey", String.class, String[].class);
        assign.setAccessible(true);
        return Integer.parseInt((String) assign.invoke(constructor.newInstance(), key, new String[] {"0", "1", "2", "3"}));
    }

    private static String roundRobin(Hub hub) throws Exception {
        for (int i = 0; i < 8; i++) {
            String text = String.valueOf(i);
            hub.producer().send(List.of(Hub.events(text, text, text)));
        }
        List<String> seen = new ArrayList<>();
        List<String> spread = new ArrayList<>();
        for (int p = 0; p < Hub.PARTITIONS; p++) {
            List<String> texts = Hub.texts(hub.all(p));
            Check.that(!texts.isEmpty(), "nothing in partition %d", p);
            for (int i = 0; i < texts.size(); i += 3) {
                String text = texts.get(i);
                Check.equal(texts.subList(i, Math.min(i + 3, texts.size())), List.of(text, text, text), "a batch is torn");
                seen.add(text);
            }
            spread.add(String.valueOf(texts.size() / 3));
        }
        Collections.sort(seen);
        Check.equal(seen, List.of("0", "1", "2", "3", "4", "5", "6", "7"), "batches");
        return "batches per partition: " + String.join(" ", spread);
    }

    private static String oneByte(Hub hub) throws Exception {
        hub.send(0, new EventData(new byte[] {-1}), new EventData(new byte[0]), new EventData());
        List<EventData> events = hub.all(0);
        Check.equal(events.size(), 3, "events");
        Check.equal(events.get(0).getBody(), new byte[] {-1}, "1 byte");
        Check.equal(events.get(1).getBody(), new byte[0], "0 bytes");
        Check.equal(events.get(2).getBody(), new byte[0], "no body");
        return "1 byte and 0 bytes";
    }

    private static String large(Hub hub) throws Exception {
        byte[] body = new byte[900_000];
        new Random(1).nextBytes(body);
        hub.send(3, new EventData(body), new EventData("after".getBytes(StandardCharsets.UTF_8)));
        List<EventData> events = hub.all(3);
        Check.equal(events.size(), 2, "events");
        Check.that(java.util.Arrays.equals(events.get(0).getBody(), body), "the event came back changed");
        Check.equal(events.get(1).getBodyAsString(), "after", "the next event");
        return "";
    }

    private Sending() {
    }
}
