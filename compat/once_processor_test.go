package compat

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/once/processor"
	"github.com/millrace/millrace/once/redisledger"
	"github.com/millrace/millrace/once/sqlledger"
)

// TestProcessorOutages takes the ledger's server away from a processor, in each of the
// ways that servers go: it waits, says so, marks nothing that was not done, puts nothing
// aside, and goes on by itself. Each event has its effect once.
func TestProcessorOutages(t *testing.T) {
	stopped := func(p *process, during func()) {
		p.cmd.Process.Signal(syscall.SIGSTOP)
		defer p.cmd.Process.Signal(syscall.SIGCONT)
		during()
	}
	t.Run("Redis", func(t *testing.T) {
		address, server := redisServer(t)
		client := redis.NewClient(&redis.Options{Addr: address, ReadTimeout: time.Second})
		defer client.Close()
		for name, outage := range map[string]func(t *testing.T, during func()){
			"killed": func(t *testing.T, during func()) {
				server.kill()
				defer server.start(t)
				during()
			},
			"hangs": func(_ *testing.T, during func()) { stopped(server, during) },
			"full": func(t *testing.T, during func()) {
				set := func(limit string) {
					if err := client.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
						t.Fatal(err)
					}
				}
				set("1")
				defer set("0")
				during()
			},
			"read only": func(t *testing.T, during func()) { // as the old primary of a failover
				if err := client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
					t.Fatal(err)
				}
				during()
				if err := client.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWitness(t)
				w.o.Ledger = redisledger.New(client, redisledger.Options{Prefix: strings.ReplaceAll(name, " ", "") + ":"})
				w.o.Handle = func(_ context.Context, b processor.Batch) error {
					w.mu.Lock()
					defer w.mu.Unlock()
					for _, e := range b.Events {
						w.effects[fmt.Sprintf("%s/%d", b.Partition, e.SequenceNumber)]++
					}
					return nil
				}
				w.run(func(during func()) { outage(t, during) }, func() map[string]int {
					w.mu.Lock()
					defer w.mu.Unlock()
					return w.effects
				})
			})
		}
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		db, server := postgresServer(t, postgresFolder(t))
		for name, outage := range map[string]func(t *testing.T, during func()){
			"killed": func(t *testing.T, during func()) {
				server.kill()
				defer server.start(t)
				during()
			},
			"hangs": func(_ *testing.T, during func()) { // and all that it has started
				workers := server.workers()
				stopped(server, func() {
					for _, pid := range workers {
						syscall.Kill(pid, syscall.SIGSTOP)
						defer syscall.Kill(pid, syscall.SIGCONT)
					}
					during()
				})
			},
			"read only": func(t *testing.T, during func()) { // as after a failover
				set := func(on string) {
					for _, s := range []string{"ALTER SYSTEM SET default_transaction_read_only = " + on, "SELECT pg_reload_conf()"} {
						if _, err := db.ExecContext(t.Context(), s); err != nil {
							t.Fatal(err)
						}
					}
				}
				set("on")
				defer set("off")
				during()
			},
		} {
			t.Run(name, func(t *testing.T) {
				table := strings.ReplaceAll(name, " ", "")
				w := newWitness(t)
				w.o.Ledger = ledgerIn(t, db, sqlledger.PostgreSQL, table+"_")
				if _, err := db.ExecContext(t.Context(), "CREATE TABLE "+table+" (event TEXT)"); err != nil {
					t.Fatal(err)
				}
				w.o.HandleTx = func(ctx context.Context, tx *sql.Tx, b processor.Batch) error {
					for _, e := range b.Events {
						if _, err := tx.ExecContext(ctx, "INSERT INTO "+table+" VALUES ($1)", fmt.Sprintf("%s/%d", b.Partition, e.SequenceNumber)); err != nil {
							return err
						}
					}
					return nil
				}
				w.run(func(during func()) { outage(t, during) }, func() map[string]int {
					found := map[string]int{}
					rows, err := db.QueryContext(t.Context(), "SELECT event FROM "+table)
					if err != nil {
						t.Fatal(err)
					}
					defer rows.Close()
					for rows.Next() {
						var s string
						if err := rows.Scan(&s); err != nil {
							t.Fatal(err)
						}
						found[s]++
					}
					return found
				})
			})
		}
	})
}

// witness is a processor of a hub in this process, and what it does and says.
type witness struct {
	t      *testing.T
	broker *Broker
	o      processor.Options
	parked []processor.DeadLetter

	mu      sync.Mutex
	effects map[string]int // by partition and sequence number
	log     bytes.Buffer
}

func newWitness(t *testing.T) *witness {
	w := &witness{t: t, broker: Start(t), effects: map[string]int{}}
	if _, err := w.broker.Admin().CreateHub(t.Context(), admin.NewHub{Name: "orders", Partitions: oncePartitions}); err != nil {
		t.Fatal(err)
	}
	c, err := eventhubs.ParseConnectionString(w.broker.ConnectionString)
	if err != nil {
		t.Fatal(err)
	}
	w.o = processor.Options{
		Namespace: c.FullyQualifiedNamespace, Group: eventhubs.DefaultConsumerGroup, Batch: 20, MaxWait: 20 * time.Millisecond,
		Start:    eventhubs.StartPositions{Default: eventhubs.StartPosition{Earliest: new(true)}},
		Attempts: 2, MinBackoff: 10 * time.Millisecond, MaxBackoff: 500 * time.Millisecond, DeadLetters: w,
		// Longer than what is expected of any statement, and shorter than an outage.
		Timeout: 2 * time.Second, Lease: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(w, nil)),
	}
	for p := range oncePartitions {
		w.o.Partitions = append(w.o.Partitions, strconv.Itoa(p))
	}
	return w
}

// Write keeps the log.
func (w *witness) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

// Park keeps what is put aside, which nothing should be.
func (w *witness) Park(_ context.Context, d processor.DeadLetter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parked = append(w.parked, d)
	return nil
}

func (w *witness) said(what string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.log.String(), what)
}

// until waits for something.
func (w *witness) until(what string, is func() bool) {
	w.t.Helper()
	for range 600 {
		if is() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Fatalf("%s does not come to pass; the log:\n%s", what, w.log.String())
}

// run has events processed before, during and after an outage.
func (w *witness) run(outage func(during func()), effects func() map[string]int) {
	t := w.t
	client, err := eventhubs.NewConsumerClientFromConnectionString(w.broker.ConnectionString, "orders", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(context.Background())
	p, err := processor.New(client, nil, w.o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	sending, rest := context.WithCancel(t.Context())
	var sender sync.WaitGroup
	f := &fleet{t: t, broker: w.broker}
	sender.Go(func() { f.send(sending) })
	w.until("some are processed", func() bool { return p.Stats().Processed > 500 })
	outage(func() {
		w.until("it says that it waits", func() bool {
			return w.said("the ledger can't be used; waiting") || w.said("the ledger can't be told") || w.said("what the handler needs is away")
		})
		time.Sleep(3 * time.Second) // for what it might do wrong
	})
	after := p.Stats().Processed
	w.until("it goes on", func() bool { return p.Stats().Processed > after+500 })
	rest()
	sender.Wait()
	total := 0
	first, end := f.bounds()
	for i := range first {
		total += int(end[i] - first[i])
	}
	w.until("all are processed", func() bool {
		// A commit whose answer did not come has events be there, and skipped.
		return p.Stats().Processed+p.Stats().Skipped >= int64(total)
	})
	stop()
	if err := <-over; err != nil {
		t.Errorf("it ends with %v", err)
	}
	got := effects()
	for i := range first {
		for s := first[i]; s < end[i]; s++ {
			if n := got[fmt.Sprintf("%d/%d", i, s)]; n != 1 {
				t.Errorf("event %d of partition %d had %d effects", s, i, n)
			}
		}
	}
	if len(got) != total || len(w.parked) > 0 {
		t.Errorf("%d of %d events had effects, and %d are put aside", len(got), total, len(w.parked))
	}
	if !w.said("going on") {
		t.Error("it does not say that it goes on")
	}
	t.Logf("%d events, %+v", total, p.Stats())
	if t.Failed() {
		t.Logf("the log:\n%s", w.log.String())
	}
}
