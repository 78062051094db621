package compat;

import com.azure.json.JsonProviders;
import com.azure.json.JsonWriter;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import reactor.core.publisher.Hooks;

/**
 * The client program of the Java SDK: it runs the cases that it is asked for against the broker that
 * its environment names, and prints a line of JSON for each. compat/README.md has the rules.
 */
public final class Main {
    /** What a case may take before it counts as hanging, in seconds. */
    private static final int CASE_TIMEOUT = 75;

    interface Case {
        /** Returns what the table shows beside the case. */
        String run(Hub hub) throws Exception;
    }

    private static final Map<String, Case> CASES = new HashMap<>();

    static {
        CASES.putAll(Sending.CASES);
        CASES.putAll(Positions.CASES);
        CASES.putAll(Metadata.CASES);
        CASES.putAll(Content.CASES);
        CASES.putAll(Processors.CASES);
        CASES.putAll(Transport.CASES);
        CASES.putAll(Refused.CASES);
    }

    public static void main(String[] args) throws Exception {
        // An error that comes after nobody listens any more is a fault of the SDK or of a case: it is
        // told, and does not end the other cases.
        Hooks.onErrorDropped(e -> System.err.println("dropped: " + e));
        switch (args[0]) {
            case Processors.VICTIM -> Processors.runVictim(args[1]);
            case Transport.WITHOUT_TRUST -> Transport.runWithoutTrust(args[1], args[2]);
            default -> {
                Trust.authority(System.getenv("MILLRACE_CA_FILE"));
                for (String name : args) {
                    report(name);
                }
            }
        }
        // The SDK leaves threads behind that are not daemons.
        System.exit(0);
    }

    private static void report(String name) throws Exception {
        Hub hub = new Hub(System.getenv("MILLRACE_HUB") + name);
        boolean ok = false;
        String detail;
        try {
            Case body = CASES.get(name);
            Check.that(body != null, "this client does not know the case");
            detail = async(() -> body.run(hub)).get(CASE_TIMEOUT, TimeUnit.SECONDS);
            ok = true;
        } catch (Throwable e) {
            detail = trace(e);
        }
        try {
            async(() -> {
                hub.close();
                return null;
            }).get(10, TimeUnit.SECONDS);
        } catch (Exception e) {
            System.err.println("closing the clients of " + name + ": " + trace(e));
        }
        StringWriter line = new StringWriter();
        try (JsonWriter json = JsonProviders.createWriter(line)) {
            json.writeStartObject();
            json.writeStringField("case", name);
            json.writeBooleanField("ok", ok);
            json.writeStringField("detail", detail);
            json.writeEndObject();
        }
        System.out.println(line);
    }

    private interface Task {
        String run() throws Exception;
    }

    /** Runs a task in a thread of its own, so that one that hangs holds up no other. */
    private static CompletableFuture<String> async(Task task) {
        CompletableFuture<String> outcome = new CompletableFuture<>();
        Thread thread = new Thread(() -> {
            try {
                outcome.complete(task.run());
            } catch (Throwable e) {
                outcome.completeExceptionally(e);
            }
        });
        thread.setDaemon(true);
        thread.start();
        return outcome;
    }

    private static String trace(Throwable e) {
        if (e instanceof java.util.concurrent.TimeoutException) {
            return "hangs";
        }
        if (e instanceof java.util.concurrent.ExecutionException || e instanceof CompletionException) {
            e = e.getCause();
        }
        StringWriter text = new StringWriter();
        e.printStackTrace(new PrintWriter(text));
        return text.toString();
    }

    private Main() {
    }
}
