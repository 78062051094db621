// Package segment is the storage engine for one machine: a folder of segment
// files for each partition, one journal in front of them all, and a bbolt
// database for the small facts.
//
// What it promises:
//
//   - An append is acknowledged when its bytes are synced (or, under the
//     policies interval and never, written). One committer gathers the appends
//     of all partitions and syncs once for all of them.
//   - Sequence numbers are given in commit order and never twice. A batch is
//     stored whole or not at all.
//   - Damage is told from a torn tail. What was durable when a later frame was
//     written, or at a checkpoint, must be there; if it isn't, the partitions
//     that it may touch refuse, with the file and the place named.
//
// docs/FORMAT.md draws the bytes; docs/adr/ has the reasons. Lock order, from
// the outside in: Store.opening, log.files, Store.mu, log.mu. No lock is held
// while waiting for another goroutine, and none but log.files over a disk
// operation.
//
// It knows nothing of hubs' rules or of protocols.
package segment
