package compat

import (
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/once/processor"
	"github.com/millrace/millrace/once/redisledger"
	"github.com/millrace/millrace/once/sqlledger"
)

var onceKills = flag.Int("once-kills", 8, "how many consumers are killed between effect and checkpoint, for each ledger; the broker is killed once for ten of them")

// The hub of TestProcessedOnce, and who reads it.
const (
	oncePartitions = 6
	onceProcesses  = 5
	onceBatch      = 50
)

// consumerEnv holds what a process is to do that is this test's binary: a consumer.
const consumerEnv = "MILLRACE_COMPAT_CONSUMER"

// consumerOptions are what a consumer process is told.
type consumerOptions struct {
	Name, Mode                   string // of the process, which is never used again; of the test
	ConnectionString, Storage    string
	Postgres, Redis, TablePrefix string
}

// TestConsumerProcess is no test: it is a consumer in a process of its own, which
// TestProcessedOnce starts and kills.
func TestConsumerProcess(t *testing.T) {
	text := os.Getenv(consumerEnv)
	if text == "" {
		t.Skip("it is a part of TestProcessedOnce")
	}
	var o consumerOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	if err := o.consume(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// consume processes events until the process is killed. An effect is a row, or an entry
// of a list, that says which event it is of, and which call of which process made it.
func (o consumerOptions) consume(ctx context.Context) error {
	connection, err := eventhubs.ParseConnectionString(o.ConnectionString)
	if err != nil {
		return err
	}
	client, err := eventhubs.NewConsumerClientFromConnectionString(o.ConnectionString, "orders", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		return err
	}
	c, err := container.NewClientFromConnectionString(o.Storage, "checkpoints", nil)
	if err != nil {
		return err
	}
	c.Create(ctx, nil) //nolint:errcheck // it may be there
	store, err := checkpoints.NewBlobStore(c, nil)
	if err != nil {
		return err
	}
	db, err := sql.Open("pgx", o.Postgres)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(6)
	r := redis.NewClient(&redis.Options{Addr: o.Redis})
	opts := processor.Options{
		Namespace: connection.FullyQualifiedNamespace, Group: eventhubs.DefaultConsumerGroup,
		Batch: onceBatch, MaxWait: 50 * time.Millisecond, Lease: 4 * time.Second,
		CheckpointEvents: 500, CheckpointInterval: 2 * time.Second,
		Start:   eventhubs.StartPositions{Default: eventhubs.StartPosition{Earliest: new(true)}},
		Balance: 300 * time.Millisecond, Expiry: 2 * time.Second, MinBackoff: 10 * time.Millisecond, MaxBackoff: time.Second,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	switch o.Mode {
	case "transaction":
		l, err := sqlledger.New(db, sqlledger.PostgreSQL, sqlledger.Options{Prefix: o.TablePrefix})
		if err != nil {
			return err
		}
		opts.Ledger = l
		opts.HandleTx = func(ctx context.Context, tx *sql.Tx, b processor.Batch) error { return o.insert(ctx, tx, b) }
	case "redis":
		opts.Ledger = redisledger.New(r, redisledger.Options{Prefix: o.TablePrefix})
		opts.Handle = func(ctx context.Context, b processor.Batch) error { return o.push(ctx, r, b) }
	case "none":
		opts.Handle = func(ctx context.Context, b processor.Batch) error { return o.insert(ctx, db, b) }
	}
	p, err := processor.New(client, store, opts)
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

var calls atomic.Int64

// effects names the effects of a call, an event each.
func (o consumerOptions) effects(b processor.Batch) (list []string) {
	call := calls.Add(1)
	for _, e := range b.Events {
		list = append(list, fmt.Sprintf("%s/%d/%s/%d", b.Partition, e.SequenceNumber, o.Name, call))
	}
	return list
}

// insert has the effects of a batch in one statement, and then takes a while, in which
// it is killed.
func (o consumerOptions) insert(ctx context.Context, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, b processor.Batch) error {
	_, err := db.ExecContext(ctx, "INSERT INTO "+o.TablePrefix+"effects SELECT unnest($1::text[])", o.effects(b))
	if err == nil {
		time.Sleep(rand.N(20 * time.Millisecond))
	}
	return err
}

// push is insert for a list in Redis.
func (o consumerOptions) push(ctx context.Context, r *redis.Client, b processor.Batch) error {
	var list []any
	for _, e := range o.effects(b) {
		list = append(list, e)
	}
	err := r.RPush(ctx, o.TablePrefix+"effects", list...).Err()
	if err == nil {
		time.Sleep(rand.N(20 * time.Millisecond))
	}
	return err
}

// TestProcessedOnce has five processes share a hub's partitions, kills them at random
// between an event's effect and its checkpoint, and the broker too, and counts effects:
// in a real PostgreSQL and a real Redis.
//
//	go test -run TestProcessedOnce . -once-kills 200 -timeout 2h -v
func TestProcessedOnce(t *testing.T) {
	db, server := postgresServer(t, postgresFolder(t), "fsync=off") // nothing here loses power
	address, _ := redisServer(t)
	postgres := fmt.Sprintf("postgres://test@127.0.0.1:%s/postgres?sslmode=disable", server.port())
	for _, mode := range []string{"transaction", "redis", "none"} {
		t.Run(mode, func(t *testing.T) {
			f := &fleet{t: t, db: db, redis: redis.NewClient(&redis.Options{Addr: address}), killed: map[string]bool{}, rng: rand.New(rand.NewPCG(*killSeed, 5))}
			defer f.redis.Close()
			t.Logf("-kill-seed %d", *killSeed)
			f.o = consumerOptions{Mode: mode, Postgres: postgres, Redis: address, TablePrefix: mode + "_"}
			f.run()
		})
	}
}

// fleet is the consumer processes of a test, the broker, and what they leave.
type fleet struct {
	t      *testing.T
	db     *sql.DB
	redis  *redis.Client
	broker *Broker
	o      consumerOptions
	rng    *rand.Rand

	procs  [onceProcesses]*exec.Cmd
	names  [onceProcesses]string
	n      int             // processes that were started
	killed map[string]bool // by name
}

func (f *fleet) run() {
	t := f.t
	for _, s := range append(sqlledger.Schema(sqlledger.PostgreSQL, f.o.TablePrefix), "CREATE TABLE "+f.o.TablePrefix+"effects (effect TEXT)") {
		if _, err := f.db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	f.broker = Start(t)
	f.o.ConnectionString, f.o.Storage = f.broker.ConnectionString, f.broker.StorageConnectionString
	if _, err := f.broker.Admin().CreateHub(t.Context(), admin.NewHub{Name: "orders", Partitions: oncePartitions}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sending sync.WaitGroup
	sending.Go(func() { f.send(ctx) })
	for i := range f.procs {
		f.launch(i)
	}
	defer func() {
		for i := range f.procs {
			f.kill(i)
		}
	}()
	f.await(oncePartitions) // it runs
	for kill := range *onceKills {
		time.Sleep(time.Duration(f.rng.IntN(1200)) * time.Millisecond)
		i := f.rng.IntN(onceProcesses)
		f.kill(i)
		f.launch(i)
		if kill%10 == 5 {
			f.broker.Kill()
			f.broker.Restart()
		}
	}
	stop()
	sending.Wait()
	total := 0
	first, end := f.bounds()
	for p := range first {
		total += int(end[p] - first[p])
	}
	f.await(total)
	f.judge(first, end)
}

// send sends events, some hundreds a second, to all partitions in turn, until ctx ends.
func (f *fleet) send(ctx context.Context) {
	for n := 0; ctx.Err() == nil; {
		p, err := eventhubs.NewProducerClientFromConnectionString(f.broker.ConnectionString, "orders", &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
		for err == nil && ctx.Err() == nil {
			var batch *eventhubs.EventDataBatch
			if batch, err = p.NewEventDataBatch(ctx, &eventhubs.EventDataBatchOptions{PartitionID: new(strconv.Itoa(n % oncePartitions))}); err != nil {
				break
			}
			for range 20 {
				if err = batch.AddEventData(&eventhubs.EventData{Body: strconv.AppendInt(nil, int64(n), 10)}, nil); err != nil {
					break
				}
			}
			if err == nil {
				err = p.SendEventDataBatch(ctx, batch, nil)
			}
			n++
			time.Sleep(30 * time.Millisecond)
		}
		if p != nil {
			p.Close(context.WithoutCancel(ctx))
		}
	}
}

// launch starts a consumer process.
func (f *fleet) launch(i int) {
	f.t.Helper()
	f.n++
	o := f.o
	o.Name = fmt.Sprintf("p%d", f.n)
	text, err := json.Marshal(o)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestConsumerProcess$", "-test.timeout=2h")
	cmd.Env = append(os.Environ(), consumerEnv+"="+string(text))
	log, err := os.Create(f.t.TempDir() + "/" + o.Name)
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.procs[i], f.names[i] = cmd, o.Name
	f.t.Cleanup(func() {
		if f.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			f.t.Logf("%s, killed %t, said last:\n%s", o.Name, f.killed[o.Name], text[max(0, len(text)-1500):])
		}
	})
}

func (f *fleet) kill(i int) {
	f.killed[f.names[i]] = true
	f.procs[i].Process.Kill()
	f.procs[i].Wait() //nolint:errcheck // it was killed
}

// bounds are each partition's first sequence number, and the one after its last.
func (f *fleet) bounds() (first, end []int64) {
	f.t.Helper()
	c, err := eventhubs.NewConsumerClientFromConnectionString(f.broker.ConnectionString, "orders", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close(context.Background())
	for p := range oncePartitions {
		b, err := c.GetPartitionProperties(f.t.Context(), strconv.Itoa(p), nil)
		if err != nil {
			f.t.Fatal(err)
		}
		first, end = append(first, b.BeginningSequenceNumber), append(end, b.LastEnqueuedSequenceNumber+1)
	}
	return first, end
}

// effects are all that happened, in no order.
func (f *fleet) effects() (list []string) {
	f.t.Helper()
	ctx := f.t.Context()
	if f.o.Mode == "redis" {
		list, err := f.redis.LRange(ctx, f.o.TablePrefix+"effects", 0, -1).Result()
		if err != nil {
			f.t.Fatal(err)
		}
		return list
	}
	rows, err := f.db.QueryContext(ctx, "SELECT effect FROM "+f.o.TablePrefix+"effects")
	if err != nil {
		f.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			f.t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		f.t.Fatal(err)
	}
	return list
}

// await waits until so many events have had an effect. They are let settle: what is under
// way when the last one had its own is over soon after.
func (f *fleet) await(n int) {
	f.t.Helper()
	for range 600 {
		events := map[string]bool{}
		for _, e := range f.effects() {
			partition, rest, _ := strings.Cut(e, "/")
			sequence, _, _ := strings.Cut(rest, "/")
			events[partition+"/"+sequence] = true
		}
		if len(events) >= n {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	f.t.Fatalf("not all of %d events have had an effect", n)
}

// effect is where an effect comes from.
type effect struct{ process, call string }

// judge counts each event's effects, and looks whose fault those are that happened more
// than once.
func (f *fleet) judge(first, end []int64) {
	of := map[string][]effect{} // by event, in the order of the list
	all := f.effects()
	for _, e := range all {
		x := strings.Split(e, "/")
		of[x[0]+"/"+x[1]] = append(of[x[0]+"/"+x[1]], effect{x[2], x[3]})
	}
	repeated, worst, total := 0, 0, 0
	blame := map[string]map[string]bool{} // by killed process and partition: the calls that were repeated
	for p := range first {
		for s := first[p]; s < end[p]; s++ {
			total++
			list := of[fmt.Sprintf("%d/%d", p, s)]
			if len(list) == 0 {
				f.t.Errorf("event %d of partition %d had no effect", s, p)
				continue
			}
			if len(list) > 1 {
				repeated++
				worst = max(worst, len(list))
			}
			for _, x := range list[:len(list)-1] {
				if !f.killed[x.process] && f.o.Mode != "none" {
					f.t.Errorf("event %d of partition %d had an effect by %s, which lives, and another", s, p, x.process)
				}
				key := fmt.Sprintf("%s/%d", x.process, p)
				if blame[key] == nil {
					blame[key] = map[string]bool{}
				}
				blame[key][x.call] = true
			}
		}
	}
	if len(of) != total {
		f.t.Errorf("%d events had effects, and there are %d", len(of), total)
	}
	batches := 0
	for _, calls := range blame {
		batches += len(calls)
	}
	kills := len(f.killed)
	f.t.Logf("%s: %d kills, %d events, %d effects, %d events more than once (at most %d times), in %d batches", f.o.Mode, kills, total, len(all), repeated, worst, batches)
	switch f.o.Mode {
	case "transaction":
		if len(all) != total {
			f.t.Errorf("%d effects of %d events, in one transaction with their marks", len(all), total)
		}
	case "redis":
		for who, calls := range blame {
			if len(calls) > 1 {
				f.t.Errorf("%s had %d batches repeated, and it can have died in one only", who, len(calls))
			}
		}
	case "none":
		if repeated == 0 {
			f.t.Error("nothing happened twice without a ledger: the kills come too late for this test to see anything")
		}
	}
}
