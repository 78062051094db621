// Package capture is the service's Capture: it writes what arrives in a hub's
// partitions to files, each event to one file, once, whatever crashes.
//
// An Engine has a goroutine for each partition that is captured. It follows the log
// through a window, of which it keeps whole blocks in a file below Options.Spool, and
// closes it by time, size or the end of the log. Then the file's name, size and
// checksum are made certain, in Meta, and the file is put at its Destination until
// that is known to have it; only then the next window begins. A file is made of the
// log alone, so that a broker that was killed makes it again, to the byte. How a
// partition stands is a cursor; what comes when is said at step, put and rebuild.
//
// The files themselves are those of capture/avro and capture/parquet, made of rows
// (capture/row).
//
// It knows hubs, the log and its records, and no server.
package capture
