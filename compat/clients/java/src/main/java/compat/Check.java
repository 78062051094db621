package compat;

import java.time.Duration;
import java.util.Objects;

/** What has to hold, and waiting for it. */
final class Check {
    interface Condition {
        boolean holds() throws Exception;
    }

    static void that(boolean holds, String text, Object... values) {
        if (!holds) {
            throw new AssertionError(text.formatted(values));
        }
    }

    static void equal(Object got, Object want, String what) {
        if (!Objects.deepEquals(got, want)) {
            throw new AssertionError("%s: got %.300s, want %.300s".formatted(what, got, want));
        }
    }

    static void until(String what, Duration limit, Condition condition) throws Exception {
        long deadline = System.nanoTime() + limit.toNanos();
        while (!condition.holds()) {
            that(System.nanoTime() < deadline, "%s: not within %s", what, limit);
            Thread.sleep(20);
        }
    }

    private Check() {
    }
}
