package processor_test

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"

	"github.com/millrace/millrace/once/processor"
	"github.com/millrace/millrace/once/sqlledger"
)

// The effects go into the database that the ledger is in, through the transaction: each
// happens exactly once, whoever dies.
func ExampleOptions_handleTx() {
	ctx := context.Background()
	var db *sql.DB                         // opened with a driver for PostgreSQL
	var client *azeventhubs.ConsumerClient // of the hub and the group
	var store *checkpoints.BlobStore

	ledger, err := sqlledger.New(db, sqlledger.PostgreSQL, sqlledger.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := ledger.CreateTables(ctx); err != nil {
		log.Fatal(err)
	}
	p, err := processor.New(client, store, processor.Options{
		Namespace: "example.servicebus.windows.net", Group: "$Default",
		Ledger: ledger,
		Batch:  500, MaxWait: time.Second,
		HandleTx: func(ctx context.Context, tx *sql.Tx, b processor.Batch) error {
			for i, e := range b.Events {
				if len(e.Body) == 0 {
					return &processor.PoisonError{Index: i, Err: errors.New("there is nothing in it")}
				}
				if _, err := tx.ExecContext(ctx, "INSERT INTO orders (body) VALUES ($1)", e.Body); err != nil {
					return err
				}
			}
			return nil // committed with the marks of these events, or rolled back with them
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
