// Package row is a row of a captured file: an event by the columns that the
// service's Capture has, the same for every file format.
//
//	┌────────────────┬────────┬──────────┬──────────────────┬────────────┬──────┐
//	│ SequenceNumber │ Offset │ Enqueued │ SystemProperties │ Properties │ Body │
//	└────────────────┴────────┴──────────┴──────────────────┴────────────┴──────┘
//
// [Decoder] makes rows of stored events, writers write them, readers give them
// back. What a row keeps of an event:
//
//   - SystemProperties: the message annotations that are stored (x-opt-partition-key,
//     x-opt-publisher, the producer's own), and the fields of the section
//     properties by their names in AMQP (message-id, content-type and so on); of
//     two with one name the field. Nulls are left out: the column has none.
//   - Properties: the application properties.
//   - Body: the data sections, one after the other; of a value that is a string
//     its UTF-8; of any other value, and of sequences, their AMQP encoding, without
//     the section's descriptor. Null for a message without a body, and for the
//     value null.
//   - Not kept: delivery annotations and footer, which are not the event's but of
//     its way here, and the sections' own bytes.
//
// The types of values are those of the service's Avro schema. What an event loses
// on its way through a file, and so in a replay:
//
//   - every integer and timestamp becomes a long, a float a double;
//   - a boolean becomes the string True or False; a symbol, uuid, char, decimal and
//     an unsigned integer beyond a long become strings;
//   - a list, map or array becomes a string of JSON, binary in it base64;
//   - a described value becomes the value that is described;
//   - text that is not UTF-8 has U+FFFD where it isn't;
//   - a body that was no data section becomes one;
//   - in Avro the enqueued time is cut to whole seconds, and in Parquet every value
//     of a property is a string or null.
//
// It knows what an event is stored as (amqp/message, amqp/wire), and nothing of
// files, windows or hubs.
package row
