// Package hub has the rules of Event Hubs: namespaces with their event hubs,
// consumer groups and authorization rules; partitions that are appended to by
// id, key or turn and read from a position; receivers with their epochs and
// limits; retention.
//
// It knows the storage contract (package store) and no engine, and nothing of
// any protocol: a server asks it, and translates its *Error at the border.
package hub
