package compat;

import com.azure.core.amqp.AmqpRetryOptions;
import com.azure.core.amqp.AmqpTransportType;
import com.azure.messaging.eventhubs.EventData;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;

/** TLS and WebSocket. */
final class Transport {
    static final Map<String, Main.Case> CASES = Map.of("tls", Transport::tls, "websocket", Transport::webSocket);

    /** Makes the program one that does not trust the authority. */
    static final String WITHOUT_TRUST = "without-trust";

    private static final String UNCONNECTED = "no connection";

    private static String tls(Hub hub) throws Exception {
        overTLS(hub);
        roundTrip(hub);
        distrusts("tls", hub.name);
        return "";
    }

    private static void overTLS(Hub hub) {
        hub.connection = System.getenv("MILLRACE_TLS_CONNECTION_STRING");
    }

    private static String webSocket(Hub hub) throws Exception {
        overWebSocket(hub);
        // That it is a WebSocket needs no further proof: nothing else speaks AMQP at that address.
        roundTrip(hub);
        distrusts("websocket", hub.name);
        return "";
    }

    private static void overWebSocket(Hub hub) {
        overTLS(hub);
        hub.options = builder -> builder.transportType(AmqpTransportType.AMQP_WEB_SOCKETS)
            .customEndpointAddress("https://" + System.getenv("MILLRACE_WS_ENDPOINT"));
    }

    /** Sends some events, a large one among them, and receives them. */
    private static void roundTrip(Hub hub) throws Exception {
        byte[] large = new byte[500_000];
        new Random(1).nextBytes(large);
        hub.send(0, new EventData("one"), new EventData(large));
        hub.send(0, "three");
        List<EventData> events = hub.all(0);
        Check.equal(events.size(), 3, "events");
        Check.equal(events.get(0).getBodyAsString(), "one", "the first body");
        Check.that(Arrays.equals(events.get(1).getBody(), large), "the event came back changed");
        Check.equal(events.get(2).getBodyAsString(), "three", "the last body");
    }

    /** Without the authority there must be no connection. Why there is none, the SDK tells its log alone. */
    private static void distrusts(String transport, String hub) throws Exception {
        Process child = program(WITHOUT_TRUST, transport, hub).redirectErrorStream(true).start();
        try {
            Check.that(child.waitFor(40, TimeUnit.SECONDS), "without the authority the program hangs");
            String text = new String(child.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            Check.that(text.contains("unable to find valid certification path") && text.contains(UNCONNECTED), "without the authority: %s", text);
        } finally {
            child.destroyForcibly();
        }
    }

    /** Asks for a hub without trust in the authority, and tells how that fails. */
    static void runWithoutTrust(String transport, String name) {
        Hub hub = new Hub(name);
        if (transport.equals("tls")) {
            overTLS(hub);
        } else {
            overWebSocket(hub);
        }
        var options = hub.options;
        hub.options = builder -> options.apply(builder)
            .retryOptions(new AmqpRetryOptions().setMaxRetries(0).setTryTimeout(Duration.ofSeconds(5)));
        try {
            hub.producer().getEventHubProperties();
        } catch (RuntimeException e) {
            System.out.println(UNCONNECTED + ": " + e);
        }
    }

    /** A process of this program with other arguments. */
    static ProcessBuilder program(String... args) {
        List<String> command = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElse("java"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", System.getProperty("java.class.path"), Main.class.getName()));
        command.addAll(List.of(args));
        return new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
    }

    private Transport() {
    }
}
