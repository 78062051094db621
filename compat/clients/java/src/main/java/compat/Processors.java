package compat;

import com.azure.core.amqp.exception.AmqpErrorCondition;
import com.azure.core.amqp.exception.AmqpException;
import com.azure.messaging.eventhubs.LoadBalancingStrategy;
import com.azure.messaging.eventhubs.models.EventPosition;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.RejectedExecutionException;
import java.util.stream.LongStream;

/** Processors that share the partitions over a Blob checkpoint store. */
final class Processors {
    static final Map<String, Main.Case> CASES = Map.of("processor", Processors::processor, "takeover", Processors::takeover,
        "checkpoint", Processors::checkpoint, "seek", Processors::seek);

    /** Makes the program the processor that takeover kills. */
    static final String VICTIM = "victim";

    /** Two claims, one a round, the whole second that Last-Modified is rounded to, and what a busy machine takes. */
    private static final Duration ROUNDS = Balancer.INTERVAL.multipliedBy(5);

    private static final LoadBalancingStrategy GREEDY = LoadBalancingStrategy.GREEDY;
    private static final LoadBalancingStrategy BALANCED = LoadBalancingStrategy.BALANCED;

    private static Balancer start(Hub hub, LoadBalancingStrategy strategy) {
        return hub.keep(new Balancer(hub, strategy, event -> true));
    }

    /** Sends n events to every partition and returns their bodies. */
    private static List<String> sendToAll(Hub hub, String label, int n) {
        List<String> want = new ArrayList<>();
        for (int p = 0; p < Hub.PARTITIONS; p++) {
            String[] texts = new String[n];
            for (int i = 0; i < n; i++) {
                texts[i] = label + "/" + p + "/" + i;
            }
            hub.send(p, texts);
            want.addAll(List.of(texts));
        }
        return want;
    }

    private static String processor(Hub hub) throws Exception {
        // The first takes all, so that the second has to steal its share.
        Balancer a = start(hub, GREEDY);
        Check.until("the first owns all", Duration.ofSeconds(15), () -> a.partitions() == Hub.PARTITIONS);
        Balancer b = start(hub, BALANCED);
        Check.until("two each", Duration.ofSeconds(20),
            () -> a.partitions() == 2 && b.partitions() == 2 && a.owned() == 2 && b.owned() == 2);
        List<String> want = sendToAll(hub, "shared", 50);
        Check.until("all events", Reader.TIMEOUT, () -> a.bodies().size() + b.bodies().size() >= want.size());
        Thread.sleep(Balancer.INTERVAL.multipliedBy(2).toMillis()); // for copies, which another round of balancing would bring
        Check.equal(List.of(a.bodies().size(), b.bodies().size()), List.of(want.size() / 2, want.size() / 2), "events of each");
        List<String> got = a.bodies();
        got.addAll(b.bodies());
        Collections.sort(got);
        Collections.sort(want);
        Check.equal(got, want, "events of both");
        Check.equal(a.reasons(), List.of("LOST_PARTITION_OWNERSHIP", "LOST_PARTITION_OWNERSHIP"), "why the robbed one closed partitions");
        for (Throwable e : a.errors()) {
            Check.that(e instanceof AmqpException amqp && amqp.getErrorCondition() == AmqpErrorCondition.LINK_STOLEN, "the robbed one met %s", e);
        }
        Check.equal(a.errors().size(), 2, "errors of the robbed one");
        Check.equal(b.errors(), List.of(), "errors of the other");
        return "the robbed one sees " + Refused.describe(a.errors().get(0)) + " and closes with LOST_PARTITION_OWNERSHIP";
    }

    /**
     * The process that takeover kills: a processor that tells how many partitions it reads and how many
     * events it has, until it dies or its parent does.
     */
    static void runVictim(String name) throws Exception {
        Thread orphan = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // Nothing is ever written; only the end counts.
                }
            } catch (java.io.IOException e) {
                System.err.println(e);
            }
            Runtime.getRuntime().halt(1);
        });
        orphan.setDaemon(true);
        orphan.start();
        Balancer b = start(new Hub(name), GREEDY);
        for (;;) {
            System.out.println(b.partitions() + " " + b.bodies().size());
            Thread.sleep(20);
        }
    }

    private static String takeover(Hub hub) throws Exception {
        Process child = Transport.program(VICTIM, hub.name).start();
        try {
            List<Integer> state = Collections.synchronizedList(new ArrayList<>(List.of(0, 0))); // partitions, events
            Thread listener = new Thread(() -> new BufferedReader(new InputStreamReader(child.getInputStream())).lines().forEach(line -> {
                String[] words = line.split(" ");
                state.set(0, Integer.parseInt(words[0]));
                state.set(1, Integer.parseInt(words[1]));
            }));
            listener.setDaemon(true);
            listener.start();
            Check.until("the first owns all", Duration.ofSeconds(20), () -> state.get(0) == Hub.PARTITIONS);
            Balancer b = start(hub, BALANCED);
            Check.until("two each", Duration.ofSeconds(20), () -> state.get(0) == 2 && b.partitions() == 2);
            int half = sendToAll(hub, "before", 10).size() / 2;
            Check.until("both have their events", Reader.TIMEOUT, () -> state.get(1) == half && b.bodies().size() == half);
            child.destroyForcibly();
            long killed = System.nanoTime();
            List<String> after = sendToAll(hub, "after", 10);
            Check.until("the other owns all", Balancer.EXPIRY.plus(ROUNDS), () -> b.partitions() == Hub.PARTITIONS && b.owned() == Hub.PARTITIONS);
            Duration took = Duration.ofNanos(System.nanoTime() - killed);
            Check.that(took.compareTo(Balancer.EXPIRY.minus(Balancer.INTERVAL.multipliedBy(3))) > 0,
                "the other took over after %s: the expiry did not count", took);
            Check.until("every later event", Reader.TIMEOUT, () -> new HashSet<>(b.bodies()).containsAll(after));
            Check.equal(b.errors(), List.of(), "errors");
        } finally {
            child.destroyForcibly();
        }
        return "expiry %ds, all partitions within %ds".formatted(Balancer.EXPIRY.toSeconds(), Balancer.EXPIRY.plus(ROUNDS).toSeconds());
    }

    /**
     * Stops a processor that has met no error. Once told to stop, the SDK may end its threads before
     * their work, and reports the tasks that they refuse: that, and nothing else, is let pass.
     */
    private static void stop(Balancer processor) {
        Check.equal(processor.errors(), List.of(), "errors");
        processor.close();
        for (Throwable e : processor.errors()) {
            Check.that(e instanceof RejectedExecutionException, "stopping, the processor met %s", e);
        }
    }

    private static String checkpoint(Hub hub) throws Exception {
        int first = 10; // events
        int marked = 5; // the one that is checkpointed
        int later = 6; // events that come while nobody reads
        sendToAll(hub, "first", first);
        Balancer a = hub.keep(new Balancer(hub, GREEDY, event -> event.getSequenceNumber() == marked));
        Check.until("the first events", Reader.TIMEOUT, () -> a.bodies().size() == Hub.PARTITIONS * first);
        stop(a);
        sendToAll(hub, "later", later);
        Balancer b = start(hub, GREEDY);
        List<Long> want = LongStream.range(marked + 1, first + later).boxed().toList();
        Check.until("the rest", Reader.TIMEOUT, () -> b.bodies().size() >= Hub.PARTITIONS * want.size());
        stop(b);
        Check.equal(b.sequenceNumbers(), Map.of("0", want, "1", want, "2", want, "3", want), "what came after the checkpoints");
        return "";
    }

    /** Moves the checkpoints of the hub's default group with the command. */
    private static void seekTo(Hub hub, String position, String... more) throws Exception {
        List<String> command = new ArrayList<>(List.of(System.getenv("MILLRACE_BINARY"), "seek", "--connection-string", hub.connection,
            "--storage-connection-string", System.getenv("MILLRACE_STORAGE_CONNECTION_STRING"),
            "--hub", hub.name, "--container", hub.name, "--to", position));
        command.addAll(List.of(more));
        // Receivers that are closed may be there for a moment yet.
        Check.until("seek to " + position, Reader.TIMEOUT, () -> {
            Process process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
            return process.waitFor() == 0;
        });
    }

    /** Wants a processor, whose default is the end, to get the events from some numbers on, by partition, up to an end. */
    private static void startsAt(Hub hub, List<Integer> starts, int end) throws Exception {
        Map<String, List<Long>> want = new TreeMap<>();
        for (int p = 0; p < Hub.PARTITIONS; p++) {
            want.put(String.valueOf(p), LongStream.range(starts.get(p), end).boxed().toList());
        }
        int total = want.values().stream().mapToInt(List::size).sum();
        Balancer b = hub.keep(new Balancer(hub, GREEDY, event -> true, EventPosition.latest()));
        Check.until("the events", Reader.TIMEOUT, () -> b.bodies().size() >= total);
        stop(b);
        Check.equal(b.sequenceNumbers(), want, "what came after the checkpoints");
    }

    private static String seek(Hub hub) throws Exception {
        int first = 10; // events
        int later = 2;
        sendToAll(hub, "first", first);
        List<String> positions = List.of("earliest", "#4", "latest", "@7");
        for (int p = 0; p < Hub.PARTITIONS; p++) {
            seekTo(hub, positions.get(p), "--partition", String.valueOf(p));
        }
        sendToAll(hub, "later", later);
        startsAt(hub, List.of(0, 4, first, 7), first + later);
        seekTo(hub, "#2");
        startsAt(hub, List.of(2, 2, 2, 2), first + later);
        return "";
    }

    private Processors() {
    }
}
