package compat;

import com.azure.core.amqp.exception.AmqpErrorCondition;
import com.azure.core.amqp.exception.AmqpException;
import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventDataBatch;
import com.azure.messaging.eventhubs.models.CreateBatchOptions;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.ReceiveOptions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import reactor.core.Exceptions;

/** What the client makes of the broker's refusals. */
final class Refused {
    static final Map<String, Main.Case> CASES = new HashMap<>();

    static {
        CASES.put("wrong-key", Refused::wrongKey);
        CASES.put("unknown-hub", Refused::unknownHub);
        CASES.put("unknown-group", Refused::unknownGroup);
        CASES.put("bad-partition", Refused::badPartition);
        CASES.put("listen-only-send", Refused::listenOnlySend);
        CASES.put("send-only-receive", Refused::sendOnlyReceive);
        CASES.put("sixth-receiver", Refused::sixthReceiver);
        CASES.put("owner-level", Refused::ownerLevel);
        CASES.put("too-large", Refused::tooLarge);
        CASES.put("beyond-end", Refused::beyondEnd);
    }

    private interface Operation {
        void run() throws Exception;
    }

    static String describe(Throwable e) {
        String name = e.getClass().getSimpleName();
        return e instanceof AmqpException amqp && amqp.getErrorCondition() != null ? name + " " + amqp.getErrorCondition() : name;
    }

    /** Runs an operation and returns the error that it must end with. */
    private static Throwable error(Operation operation) {
        try {
            operation.run();
        } catch (Exception e) {
            return Exceptions.unwrap(e);
        }
        throw new AssertionError("it succeeded where an error was due");
    }

    /** Opens a reader and returns the error that it meets. */
    private static Throwable read(Hub hub, Object partition, EventPosition from, ReceiveOptions how) throws Exception {
        try (Reader reader = hub.read(partition, from, how)) {
            return reader.error();
        }
    }

    private static Throwable read(Hub hub, Object partition) throws Exception {
        return read(hub, partition, EventPosition.earliest(), new ReceiveOptions());
    }

    /** Checks an error's condition, which tells not to try again, and its text. */
    private static String refused(String operation, Throwable e, AmqpErrorCondition condition, String text) {
        String seen = operation + ": " + describe(e);
        Check.that(e instanceof AmqpException amqp && amqp.getErrorCondition() == condition && !amqp.isTransient()
            && amqp.getMessage().contains(text), "%s: %s", seen, e);
        return seen;
    }

    private static String wrongKey(Hub hub) throws Exception {
        hub.tryOnce();
        hub.connection = hub.connection.replaceAll("SharedAccessKey=[^;]*", "SharedAccessKey=wrong");
        var condition = AmqpErrorCondition.UNAUTHORIZED_ACCESS;
        return String.join("; ",
            refused("send", error(() -> hub.send(0, "x")), condition, "InvalidSignature"),
            refused("receive", read(hub, 0), condition, "InvalidSignature"),
            refused("properties", error(() -> hub.consumer().getEventHubProperties()), condition, "InvalidSignature"));
    }

    private static String unknownHub(Hub hub) throws Exception {
        hub.tryOnce();
        hub.name += "-absent";
        var condition = AmqpErrorCondition.NOT_FOUND;
        return String.join("; ",
            refused("send", error(() -> hub.send(0, "x")), condition, "could not be found"),
            refused("receive", read(hub, 0), condition, "could not be found"),
            refused("properties", error(() -> hub.consumer().getEventHubProperties()), condition, "could not be found"));
    }

    private static String unknownGroup(Hub hub) throws Exception {
        hub.tryOnce();
        hub.group = "absent";
        return refused("receive", read(hub, 0), AmqpErrorCondition.NOT_FOUND, "could not be found");
    }

    private static String badPartition(Hub hub) throws Exception {
        hub.tryOnce();
        var condition = AmqpErrorCondition.ARGUMENT_OUT_OF_RANGE_ERROR;
        String text = "The specified partition is invalid";
        // A management reply of 400 is an exception of the language.
        Throwable asked = error(() -> hub.consumer().getPartitionProperties("99"));
        Check.that(asked instanceof IllegalArgumentException && asked.getMessage().contains(text), "properties: %s", asked);
        return String.join("; ",
            refused("send", error(() -> hub.send(99, "x")), condition, text),
            refused("receive", read(hub, 99), condition, text),
            "properties: " + describe(asked));
    }

    private static String listenOnlySend(Hub hub) {
        hub.tryOnce();
        hub.connection = System.getenv("MILLRACE_LISTEN_CONNECTION_STRING");
        hub.consumer().getEventHubProperties();
        return refused("send", error(() -> hub.send(0, "x")), AmqpErrorCondition.UNAUTHORIZED_ACCESS,
            "Unauthorized access. 'Send' claim(s) are required");
    }

    private static String sendOnlyReceive(Hub hub) throws Exception {
        hub.tryOnce();
        hub.connection = System.getenv("MILLRACE_SEND_CONNECTION_STRING");
        hub.send(0, "x");
        return refused("receive", read(hub, 0), AmqpErrorCondition.UNAUTHORIZED_ACCESS, "Unauthorized access. 'Listen' claim(s) are required");
    }

    private static String sixthReceiver(Hub hub) throws Exception {
        hub.tryOnce();
        hub.send(0, "x");
        List<Reader> readers = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
            readers.add(hub.read(0, EventPosition.earliest()));
            readers.get(i).next(1);
        }
        String detail = refused("receive", read(hub, 0), AmqpErrorCondition.RESOURCE_LIMIT_EXCEEDED,
            "Exceeded the maximum number of allowed receivers per partition in a consumer group which is 5");
        // A place that comes free can be taken. The SDK closes without waiting for the broker.
        readers.get(2).close();
        Check.until("a free place", Duration.ofSeconds(10), () -> {
            try (Reader again = hub.read(0, EventPosition.earliest())) {
                return again.next(1).size() == 1;
            } catch (IllegalStateException e) {
                return false;
            }
        });
        return detail;
    }

    private static String ownerLevel(Hub hub) throws Exception {
        hub.tryOnce();
        hub.send(0, "x");
        List<Reader> owners = new ArrayList<>();
        for (ReceiveOptions how : List.of(new ReceiveOptions(), level(1), level(2))) {
            Reader reader = hub.read(0, EventPosition.earliest(), how);
            reader.next(1);
            owners.add(reader);
        }
        var condition = AmqpErrorCondition.LINK_STOLEN;
        String detail = String.join("; ",
            refused("loser", owners.get(1).error(), condition, "with higher epoch of '2' is created"),
            refused("loser without level", owners.get(0).error(), condition, "with higher epoch of '1' is created"),
            refused("lower level", read(hub, 0, EventPosition.earliest(), level(1)), condition, "with increasing epoch value"),
            refused("no level", read(hub, 0), condition, "At least one receiver for the endpoint is created with epoch of '2'"));
        // The owner keeps the partition all the while.
        hub.send(0, "y");
        Check.equal(Hub.texts(owners.get(2).next(1)), List.of("y"), "what the owner gets");
        return detail;
    }

    private static ReceiveOptions level(long level) {
        return new ReceiveOptions().setOwnerLevel(level);
    }

    private static String tooLarge(Hub hub) throws Exception {
        hub.tryOnce();
        int limit = 1 << 20;
        EventDataBatch batch = hub.producer().createBatch(new CreateBatchOptions().setPartitionId("0"));
        Check.equal(batch.getMaxSizeInBytes(), limit, "the limit");
        var condition = AmqpErrorCondition.LINK_PAYLOAD_SIZE_EXCEEDED;
        String detail = String.join("; ",
            refused("tryAdd", error(() -> batch.tryAdd(new EventData(new byte[limit]))), condition, "exceeded"),
            refused("send", error(() -> hub.send(0, new EventData(new byte[limit]))), condition, "exceeded"));
        // The link stays open, and takes what is nearly as large. The SDK keeps 16 KiB of a batch for
        // itself; its send of a list loses, without a word, an event that would need some of those.
        int nearly = limit - (17 << 10);
        Check.that(batch.tryAdd(new EventData(new byte[nearly])), "the batch takes no event of nearly 1 MiB");
        hub.producer().send(batch);
        hub.send(0, "after");
        List<Integer> sizes = hub.all(0).stream().map(e -> e.getBody().length).toList();
        Check.equal(sizes, List.of(nearly, "after".length()), "sizes of events");
        return detail + ", from the client";
    }

    private static String beyondEnd(Hub hub) throws Exception {
        hub.tryOnce();
        hub.send(0, "0", "1", "2");
        var condition = AmqpErrorCondition.ARGUMENT_ERROR;
        return String.join("; ",
            refused("offset", read(hub, 0, EventPosition.fromOffsetString("1000"), new ReceiveOptions()), condition,
                "The supplied offset '1000' is invalid. The last offset in the system is '2'"),
            refused("sequence number", read(hub, 0, EventPosition.fromSequenceNumber(1000), new ReceiveOptions()), condition,
                "The supplied sequence number '1000' is invalid. The last sequence number in the system is '2'"));
    }

    private Refused() {
    }
}
