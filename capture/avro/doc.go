// Package avro writes and reads captured files as the service's Capture writes
// them: Avro object containers of one schema, byte for byte.
//
//	┌─────┬───┬────────────┬──────┬─────────────┬────────┬───┬──────┐
//	│Obj 1│ 2 │ avro.codec │ null │ avro.schema │ Schema │ 0 │ sync │  490 bytes
//	└─────┴───┴────────────┴──────┴─────────────┴────────┴───┴──────┘
//	┌────────┬──────┬───────────────────┬──────┐
//	│ events │ size │ event, event, …   │ sync │  a block, of about 64 KiB; as often
//	└────────┴──────┴───────────────────┴──────┘  as needed
//
// and an event is
//
//	┌──────────────┬────────────┬──────────────────┬───────────────┬───────────────┬──────────┐
//	│Sequence: long│Offset: text│EnqueuedTime: text│SystemProps map│Properties map │ 0, or    │
//	│              │            │6/25/2020 3:47 PM │n (name value)…│n (name value)…│ 1 + Body │
//	└──────────────┴────────────┴──────────────────┴───────────────┴───────────────┴──────────┘
//
// The length of header and empty file matter: the vendor's own sample knows files
// without events by their 508 bytes. Header and events were compared with a file of
// the service from 2018, public in samples; one of 2016 has a schema seven bytes
// shorter, without null among the values of Properties, which [Reader] reads too.
//
// What a writer writes is a function of its options and the rows alone, so that a
// file begun before a crash is the same when it is written again. With CodecDeflate
// that holds for one version of the compressor, and so of Millrace.
//
// It knows rows (capture/row), and nothing of names, windows and destinations.
package avro
