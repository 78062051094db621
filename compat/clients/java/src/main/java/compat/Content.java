package compat;

import com.azure.core.amqp.models.AmqpAddress;
import com.azure.core.amqp.models.AmqpMessageId;
import com.azure.core.amqp.models.AmqpMessageProperties;
import com.azure.core.util.BinaryData;
import com.azure.messaging.eventhubs.EventData;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.qpid.proton.amqp.Binary;
import org.apache.qpid.proton.amqp.Decimal128;
import org.apache.qpid.proton.amqp.Decimal32;
import org.apache.qpid.proton.amqp.Decimal64;
import org.apache.qpid.proton.amqp.Symbol;
import org.apache.qpid.proton.amqp.UnsignedByte;
import org.apache.qpid.proton.amqp.UnsignedInteger;
import org.apache.qpid.proton.amqp.UnsignedLong;
import org.apache.qpid.proton.amqp.UnsignedShort;

/** Bodies and properties of every type that the client can send. */
final class Content {
    static final Map<String, Main.Case> CASES = Map.of("bodies", Content::bodies, "properties", Content::properties);

    private static final Instant MOMENT = Instant.parse("2026-02-03T04:05:06.789Z");

    private static String bodies(Hub hub) throws Exception {
        byte[] every = new byte[256];
        for (int i = 0; i < every.length; i++) {
            every[i] = (byte) i;
        }
        byte[] text = "Grüße, 世界".getBytes(StandardCharsets.UTF_8);
        List<byte[]> want = List.of(every, text, text, every, every, new byte[70_000]);
        hub.send(0, new EventData(every), new EventData("Grüße, 世界"), new EventData(BinaryData.fromString("Grüße, 世界")),
            new EventData(ByteBuffer.wrap(every)), new EventData().setBodyAsBinaryData(BinaryData.fromBytes(every)),
            new EventData(new byte[70_000]));
        List<EventData> events = hub.all(0);
        Check.equal(events.size(), want.size(), "events");
        for (int i = 0; i < want.size(); i++) {
            EventData e = events.get(i);
            Check.that(java.util.Arrays.equals(e.getBody(), want.get(i)), "body %d came back changed", i);
            Check.equal(e.getRawAmqpMessage().getBody().getBodyType().toString(), "DATA", "kind of body");
            Check.equal(e.getRawAmqpMessage().getBody().getData().stream().count(), 1L, "data sections");
        }
        return "data; the SDK sends one data section only";
    }

    /** A value of every simple type that the SDK's AMQP library writes, in each of its encodings. */
    private static Map<String, Object> scalars() {
        Map<String, Object> all = new LinkedHashMap<>();
        all.put("true", true);
        all.put("false", false);
        all.put("null", null);
        all.put("ubyte", UnsignedByte.valueOf((byte) 200));
        all.put("ushort", UnsignedShort.valueOf((short) 60_000));
        all.put("uint 0", UnsignedInteger.valueOf(0));
        all.put("uint small", UnsignedInteger.valueOf(7));
        all.put("uint", UnsignedInteger.MAX_VALUE);
        all.put("ulong 0", UnsignedLong.valueOf(0));
        all.put("ulong small", UnsignedLong.valueOf(7));
        all.put("ulong", UnsignedLong.valueOf(-1));
        all.put("byte", (byte) -100);
        all.put("short", (short) -30_000);
        all.put("int small", -7);
        all.put("int", Integer.MIN_VALUE);
        all.put("long small", -7L);
        all.put("long", Long.MIN_VALUE);
        all.put("float", 1.5f);
        all.put("double", -2.25e300);
        all.put("decimal32", new Decimal32(0x32800001));
        all.put("decimal64", new Decimal64(0x31c0000000000001L));
        all.put("decimal128", new Decimal128(0x3040000000000000L, 1));
        all.put("char", '世');
        all.put("timestamp", Date.from(MOMENT));
        all.put("uuid", UUID.fromString("00112233-4455-6677-8899-aabbccddeeff"));
        all.put("binary", new Binary(new byte[] {0, 1, -1}));
        all.put("binary long", new Binary(new byte[300]));
        all.put("string", "Grüße, 世界");
        all.put("string long", "x".repeat(300));
        all.put("string empty", "");
        all.put("symbol", Symbol.valueOf("symbol"));
        all.put("symbol long", Symbol.valueOf("x".repeat(300)));
        return all;
    }

    private static String properties(Hub hub) throws Exception {
        Map<String, Object> scalars = scalars();
        OffsetDateTime time = MOMENT.atOffset(ZoneOffset.UTC);
        EventData full = new EventData("body");
        full.getProperties().putAll(scalars);
        full.getRawAmqpMessage().getMessageAnnotations().putAll(Map.of("x-mine", 5, "x-more", "text"));
        fields(full.getRawAmqpMessage().getProperties(), time);
        EventData plain = new EventData("body").setContentType("text/plain").setCorrelationId("correlation").setMessageId("message");
        hub.send(0, full, plain);
        List<EventData> events = hub.all(0);
        Check.equal(events.size(), 2, "events");

        EventData got = events.get(0);
        Check.equal(got.getProperties().keySet(), scalars.keySet(), "names of properties");
        scalars.forEach((name, value) -> Check.equal(got.getProperties().get(name), value, "property " + name));
        for (Map<String, Object> annotations : List.of(got.getRawAmqpMessage().getMessageAnnotations(), got.getSystemProperties())) {
            Check.equal(annotations.get("x-mine"), 5, "annotation");
            Check.equal(annotations.get("x-more"), "text", "annotation");
        }
        AmqpMessageProperties p = got.getRawAmqpMessage().getProperties();
        AmqpMessageProperties want = full.getRawAmqpMessage().getProperties();
        Check.equal(list(p), list(want), "message properties");
        Check.equal(p.getUserId(), want.getUserId(), "user id");

        EventData last = events.get(1);
        Check.equal(List.of(last.getContentType(), last.getCorrelationId(), last.getMessageId()),
            List.of("text/plain", "correlation", "message"), "content type and identifiers");
        Check.equal(last.getProperties(), Map.of(), "properties that nobody set");
        return "%d types and encodings; identifiers are strings".formatted(scalars.size());
    }

    private static void fields(AmqpMessageProperties p, OffsetDateTime time) {
        p.setMessageId(new AmqpMessageId("message")).setCorrelationId(new AmqpMessageId("correlation"))
            .setAbsoluteExpiryTime(time).setCreationTime(time.minusSeconds(1))
            .setContentEncoding("gzip").setContentType("application/json")
            .setGroupId("group").setGroupSequence(9L).setReplyToGroupId("group 2")
            .setReplyTo(new AmqpAddress("reply-to")).setTo(new AmqpAddress("to")).setSubject("subject")
            .setUserId("user".getBytes(StandardCharsets.UTF_8));
    }

    private static List<Object> list(AmqpMessageProperties p) {
        return java.util.Arrays.asList(p.getMessageId(), p.getCorrelationId(), p.getAbsoluteExpiryTime(), p.getCreationTime(),
            p.getContentEncoding(), p.getContentType(), p.getGroupId(), p.getGroupSequence(), p.getReplyToGroupId(), p.getReplyTo(), p.getTo(),
            p.getSubject());
    }

    private Content() {
    }
}
