package compat;

import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventProcessorClient;
import com.azure.messaging.eventhubs.EventProcessorClientBuilder;
import com.azure.messaging.eventhubs.LoadBalancingStrategy;
import com.azure.messaging.eventhubs.checkpointstore.blob.BlobCheckpointStore;
import com.azure.messaging.eventhubs.models.CloseContext;
import com.azure.messaging.eventhubs.models.ErrorContext;
import com.azure.messaging.eventhubs.models.EventContext;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.PartitionOwnership;
import com.azure.storage.blob.BlobContainerAsyncClient;
import com.azure.storage.blob.BlobContainerClientBuilder;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import reactor.core.Exceptions;

/** A processor of all partitions with a Blob checkpoint store, and what it has received. */
final class Balancer implements AutoCloseable {
    /** How fast processors balance. */
    static final Duration INTERVAL = Duration.ofSeconds(1);
    static final Duration EXPIRY = Duration.ofSeconds(5);

    private final Hub hub;
    private final BlobCheckpointStore store;
    private final EventProcessorClient processor;
    private final Set<String> active = new TreeSet<>();
    private final Map<String, List<EventData>> events = new TreeMap<>();
    private final List<Throwable> errors = new ArrayList<>();
    private final List<String> reasons = new ArrayList<>();

    /** Starts one. Its store is a container of the hub's name; events that checkpoint says are checkpointed. */
    Balancer(Hub hub, LoadBalancingStrategy strategy, Predicate<EventData> checkpoint) {
        this(hub, strategy, checkpoint, EventPosition.earliest());
    }

    /** Starts one that goes to a position where there is no checkpoint. */
    Balancer(Hub hub, LoadBalancingStrategy strategy, Predicate<EventData> checkpoint, EventPosition from) {
        this.hub = hub;
        BlobContainerAsyncClient container = new BlobContainerClientBuilder()
            .connectionString(System.getenv("MILLRACE_STORAGE_CONNECTION_STRING")).containerName(hub.name).buildAsyncClient();
        container.createIfNotExists().block(Reader.TIMEOUT);
        store = new BlobCheckpointStore(container);
        processor = new EventProcessorClientBuilder().connectionString(hub.connection, hub.name).consumerGroup(Hub.GROUP)
            .checkpointStore(store).loadBalancingStrategy(strategy)
            .loadBalancingUpdateInterval(INTERVAL).partitionOwnershipExpirationInterval(EXPIRY)
            .initialPartitionEventPosition(partition -> from)
            .processPartitionInitialization(context -> opened(context.getPartitionContext().getPartitionId()))
            .processPartitionClose(this::closed)
            .processError(this::failed)
            .processEvent(context -> {
                arrived(context);
                if (checkpoint.test(context.getEventData())) {
                    context.updateCheckpoint();
                }
            })
            .buildEventProcessorClient();
        processor.start();
    }

    private synchronized void opened(String partition) {
        active.add(partition);
    }

    private synchronized void closed(CloseContext context) {
        active.remove(context.getPartitionContext().getPartitionId());
        reasons.add(context.getCloseReason().toString());
    }

    private synchronized void failed(ErrorContext context) {
        errors.add(Exceptions.unwrap(context.getThrowable()));
    }

    private synchronized void arrived(EventContext context) {
        events.computeIfAbsent(context.getPartitionContext().getPartitionId(), id -> new ArrayList<>()).add(context.getEventData());
    }

    /** How many partitions it reads. */
    synchronized int partitions() {
        return active.size();
    }

    synchronized List<String> bodies() {
        return events.values().stream().flatMap(List::stream).map(EventData::getBodyAsString).collect(Collectors.toCollection(ArrayList::new));
    }

    synchronized Map<String, List<Long>> sequenceNumbers() {
        Map<String, List<Long>> out = new TreeMap<>();
        events.forEach((id, list) -> out.put(id, list.stream().map(EventData::getSequenceNumber).toList()));
        return out;
    }

    synchronized List<Throwable> errors() {
        return List.copyOf(errors);
    }

    /** Why partitions were closed. */
    synchronized List<String> reasons() {
        return List.copyOf(reasons);
    }

    /** How many partitions are this one's by the checkpoint store. */
    long owned() {
        // The processor names its blobs in lower case; hubs of cases are.
        String namespace = hub.connection.replaceAll(".*sb://([^:/;]*).*", "$1");
        List<PartitionOwnership> all = store.listOwnership(namespace, hub.name, Hub.GROUP.toLowerCase(Locale.ROOT)).collectList().block(Reader.TIMEOUT);
        return all.stream().filter(o -> processor.getIdentifier().equals(o.getOwnerId())).count();
    }

    @Override
    public void close() {
        processor.stop();
    }
}
