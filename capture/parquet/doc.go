// Package parquet writes and reads captured files in Parquet. The service has no
// such form of raw events, so the columns are ours: those of its Avro files, with
// the time typed and the partition key in a column of its own.
//
//	SequenceNumber    INT64
//	Offset            BYTE_ARRAY (STRING)
//	EnqueuedTimeUtc   INT64 (TIMESTAMP, milliseconds, UTC)
//	PartitionKey      BYTE_ARRAY (STRING), optional: also in SystemProperties
//	SystemProperties  MAP<STRING, STRING>
//	Properties        MAP<STRING, optional STRING>
//	Body              BYTE_ARRAY, optional
//
// Values of properties that are no text are JSON: numbers as they are, bytes in
// base64 between quotes. Pages are compressed with zstd. What a writer writes is a
// function of the rows and the size of row groups alone, for one version of the
// libraries, and so of Millrace.
//
// Files are read with the same library, which trusts a file's counts and sizes; so
// [NewReader] walks through the file first, and refuses what it could choke on.
//
// It knows rows (capture/row), and nothing of names, windows and destinations.
package parquet
