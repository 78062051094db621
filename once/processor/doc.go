// Package processor processes the events of an event hub, each once, over the Go SDK's
// own Processor: it keeps checkpoint and ledger together.
//
// Processes of one consumer group share the partitions through a checkpoint store, as
// they do with the SDK. Each partition is resumed from the later of its checkpoint and
// what the ledger has settled; its events are processed in order, one by one or in
// batches; what fails is tried again with growing pauses; what never succeeds is put
// aside with its reason, if there is a place for it; checkpoints are written every so
// many events or so often.
//
//	p, err := processor.New(client, store, processor.Options{
//		Ledger: ledger,
//		Handle: func(ctx context.Context, b processor.Batch) error {
//			for _, e := range b.Events {
//				if err := charge(ctx, e); err != nil {
//					return err
//				}
//			}
//			return nil
//		},
//		DeadLetters: processor.Hub(producer),
//	})
//	…
//	err = p.Run(ctx)
//
// # What is promised
//
// What package once promises of the ledger. With HandleTx, over sqlledger, effect and
// mark are one transaction, and the effect of each event happens exactly once. With
// Handle it happens once, unless the process dies, or the ledger stays away until it
// ends, between the effect and the mark: then one batch is processed again. Without a
// ledger everything since the last checkpoint is.
//
// Nothing is skipped: what can't be processed is put aside where DeadLetters says, or,
// without that, its partition waits at it. Nor is anything marked that was not done.
// While the ledger, the checkpoint store or the hub is away, partitions wait, say so in
// the log once, and go on by themselves.
package processor
