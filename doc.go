// Package millrace is the broker: it opens the log, the hub and the servers, gives
// them what they lend each other, and stops them in order. A Go test embeds it:
//
//	b, err := millrace.Start(ctx, millrace.Options{Ephemeral: true})
//	if err != nil {
//		return err
//	}
//	defer b.Close()
//	client, err := azeventhubs.NewProducerClientFromConnectionString(b.ConnectionString(), "events", nil)
//
// The command millrace reads the same Options from flags, the environment and a
// configuration file, with Load.
//
// The package knows everything below it, and nothing below knows it. It must hold
// no rule of a protocol and no rule of Event Hubs: those live in the servers and
// in package hub.
package millrace
