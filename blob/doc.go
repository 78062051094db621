// Package blob is a small Blob service: the part of Azure Blob Storage's REST
// interface that the checkpoint stores of the Event Hubs SDKs need, and what
// azcopy, Storage Explorer, the storage SDKs and DuckDB need to read captured
// files. It speaks HTTP ([Service] is an http.Handler) and has a few direct
// methods for the broker around it.
//
// Facts live in a [store.Meta]; one key is one compare-and-swap, and that alone
// decides who claims a partition:
//
//	blob/s/ACCOUNT                     service properties (JSON)
//	blob/c/ACCOUNT/CONTAINER           container: its id, ETag, metadata, …
//	blob/b/ID/NAME                     blob: header, metadata, small content
//	blob/u/ID/NAME 0x00 BLOCKID        staged block, not yet part of a blob
//	blob/t                             the ceiling below which ETags are given
//
// ID is the container's own, given once: deleting the container's one record
// takes all its blobs out of sight at once, and they are cleared away later.
// Content above 64 KiB is in files below a folder, named by random ids and never
// by blob names, written and synced before the record that refers to them. What
// nothing refers to is swept, see sweep.go.
//
// The package knows HTTP, that folder and the storage contract. It must not
// know hubs, engines or the messaging protocols.
package blob
