// Package once lets a consumer process each event once, although Event Hubs
// delivers it at least once.
//
// A processor that dies between the effect of an event and its checkpoint is given
// the event again, and so is a second one to which the partition moves. Package once
// keeps a second record beside the checkpoint, a [Ledger], that is asked before an
// event is processed and told after:
//
//	order := once.NewOrder(stream) // one for each receiver
//	for _, e := range received {
//		_, err := once.Do(ctx, ledger, order.Event(e.SequenceNumber), func(ctx context.Context) error {
//			return charge(ctx, e)
//		})
//		…
//	}
//
// # What is promised
//
// With [Do] and [DoBatch] an event is claimed, processed, and marked. While a claim
// holds, nobody else is given the event; when it is marked, nobody ever is. It is
// extended while the function runs. A claimer that dies holds it until its lease is
// over, then another may have it: nothing is lost. What no two systems without a common transaction can close is the gap between
// the effect and the mark. Who dies there, or can't reach the ledger any more
// ([MarkError]), leaves an event that may be processed a second time; so does a
// function that goes on after its context has ended for [ErrLease] or [ErrTimeout], and
// its lease is over ([LostError]).
//
// The cure is to keep the mark where the effect is: package sqlledger has both in one
// transaction of yours, which is exactly once, whatever dies.
//
// # What is kept
//
// An event is known by its namespace, hub, consumer group, partition and sequence
// number, or by an id that its application gave it. Of the first kind a ledger keeps,
// for each partition and group, one number, up to which everything is settled, and a
// mark for each event beyond: as many as are in work, however long the stream. Marks
// of ids are kept for a time that the ledger is opened with.
//
// Time is the ledger's: no two clients' clocks are compared.
package once
