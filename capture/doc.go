// Package capture is the service's Capture: it writes what arrives in a hub's
// partitions to files. So far it has their names; the files themselves are those
// of capture/avro and capture/parquet, made of rows (capture/row).
//
// It knows hubs, the log and its records, and no server.
package capture
