package compat

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

var (
	flips      = flag.Int("flips", 40, "how many bits of a data folder are flipped, one at a time")
	damageSeed = flag.Uint64("damage-seed", uint64(time.Now().UnixNano()), "seed of the bits that are flipped")
)

// TestDamageIsNamed flips one bit of a cleanly stopped broker's data folder, at
// random, over and over: either verify names the file, or the bit meant nothing,
// and what is read is what was sent. A broker started on it never serves anything
// else, and serves the partitions that were not touched.
func TestDamageIsNamed(t *testing.T) {
	t.Logf("-damage-seed %d", *damageSeed)
	rng := rand.New(rand.NewPCG(*damageSeed, 1))
	b := Start(t)
	b.Hub("kill", killPartitions)
	if _, err := b.Admin().CreateGroup(t.Context(), "kill", damageGroup); err != nil {
		t.Fatal(err)
	}
	p, err := eventhubs.NewProducerClientFromConnectionString(b.ConnectionString, "kill", nil)
	if err != nil {
		t.Fatal(err)
	}
	var life lives
	for partition := range killPartitions {
		s := &stream{name: fmt.Sprint("to ", partition), partition: strconv.Itoa(partition), padding: 3000}
		for range 40 {
			if err := s.send(t.Context(), p, &life); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeSoon(p)
	var whole [killPartitions][]string
	for partition := range killPartitions {
		if whole[partition], err = readSome(t, b, strconv.Itoa(partition), 1<<30); err != nil || len(whole[partition]) == 0 {
			t.Fatal(err)
		}
	}
	b.Stop()
	files := dataFiles(t, b.Data)
	names := slices.Sorted(maps.Keys(files))

	t.Run("any", func(t *testing.T) {
		found, started := map[string]int{}, 0
		for i := range *flips {
			// Every file has its turn, whatever its size, and no bit of a zero byte:
			// most of a journal and a database is nothing but these.
			name := names[i%len(names)]
			at, flip := rng.Int64N(int64(len(files[name]))), byte(1)<<rng.IntN(8)
			for files[name][at] == 0 {
				at = rng.Int64N(int64(len(files[name])))
			}
			damaged := copyData(t, b.Data)
			flipBits(t, filepath.Join(damaged, filepath.FromSlash(name)), at, flip)
			where := fmt.Sprintf("%s at %d, bit mask %#x", name, at, flip)
			named := verifyNames(t, damaged, where)
			if named {
				found[strings.SplitN(name, "/", 2)[0]]++
			}
			if !named || i%6 == 0 { // a start for each would take long
				started++
				b.startDamaged(t, damaged, where, named, whole)
			}
			if err := os.RemoveAll(damaged); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%d bits flipped in turn in %s; verify named %v; %d starts", *flips, strings.Join(names, ", "), found, started)
	})

	t.Run("a segment", func(t *testing.T) {
		name := names[slices.IndexFunc(names, func(n string) bool { return strings.Contains(n, "/2/") && strings.HasSuffix(n, ".seg") })]
		damaged := copyData(t, b.Data)
		at := int64(len(files[name])) / 3
		flipBits(t, filepath.Join(damaged, filepath.FromSlash(name)), at, 1)
		where := fmt.Sprintf("%s at %d, bit mask 1", name, at)
		if !verifyNames(t, damaged, where) {
			t.Error("verify does not find it")
		}
		if unread := b.startDamaged(t, damaged, where, true, whole); !slices.Equal(unread, []string{"2"}) {
			t.Errorf("of partition 2, whose segment is damaged, and the others, %v can't be read to their ends", unread)
		}
	})
}

// damageGroup is a consumer group that the database alone knows of.
const damageGroup = "readers"

// verifyNames tells whether verify finds damage; it must then name the file.
func verifyNames(t *testing.T, data, where string) bool {
	t.Helper()
	out, err := exec.Command(Binary(t), "verify", "--data", data).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case !errors.As(err, &exit) || exit.ExitCode() != 1:
		t.Errorf("%s: verify: %v\n%s", where, err, out)
	case !strings.Contains(string(out), path.Base(strings.Fields(where)[0])):
		t.Errorf("%s: verify does not name the file:\n%s", where, out)
	}
	return true
}

// startDamaged starts a broker on a damaged copy, and reads it. It returns the
// partitions that can't be read to their ends.
func (b *Broker) startDamaged(t *testing.T, data, where string, named bool, whole [killPartitions][]string) (unread []string) {
	t.Helper()
	d := *b
	d.t = t
	d.args = append(slices.Clone(b.args), "--data", data) // the last one counts
	var err error
	if d.log, err = os.Create(filepath.Join(d.Dir, "damaged.log")); err != nil {
		t.Fatal(err)
	}
	defer d.log.Close()
	file := path.Base(strings.Fields(where)[0])
	if err := d.await(d.launch("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")); err != nil {
		if !named {
			t.Errorf("%s: verify finds nothing, and the broker does not start: %v", where, err)
		} else if !strings.Contains(err.Error(), file) {
			t.Errorf("%s: the broker does not start, and does not name the file: %v", where, err)
		}
		return nil
	}
	defer d.Stop()
	for partition := range killPartitions {
		id := strconv.Itoa(partition)
		want := whole[partition]
		got, err := readSome(t, &d, id, len(want))
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: partition %s gives\n%.300q\nfor\n%.300q", where, id, got[i], want[i])
				break
			}
		}
		if err == nil && len(got) == len(want) {
			d.sendOne(t, id, where)
			continue
		}
		unread = append(unread, id)
		t.Logf("%s: partition %s gives %d of %d events, and then %v", where, id, len(got), len(want), err)
		if err == nil || !strings.Contains(err.Error(), "damaged") && strings.HasPrefix(where, "logs/") {
			t.Errorf("%s: partition %s gives %d of %d events, and the client is not told why (%v)", where, id, len(got), len(want), err)
		}
		if log := d.Log(); !strings.Contains(log, "damage") || !strings.Contains(log, file) {
			t.Errorf("%s: partition %s gives %d of %d events, and the log does not say where the damage is:\n%s", where, id, len(got), len(want), log)
		}
	}
	if len(unread) > 1 || len(unread) > 0 && !named {
		t.Errorf("%s: partitions %v can't be read to their ends (verify said so: %v)", where, unread, named)
	}
	return unread
}

// sendOne sends an event to a partition, which must work.
func (b *Broker) sendOne(t *testing.T, partition, where string) {
	t.Helper()
	p, err := eventhubs.NewProducerClientFromConnectionString(b.ConnectionString, "kill", &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(p)
	if err := (&stream{name: "more", partition: partition}).send(t.Context(), p, new(lives)); err != nil {
		t.Errorf("%s: partition %s takes no event: %v", where, partition, err)
	}
}

// readSome reads up to n events of a partition, and returns all that an SDK tells
// of each.
func readSome(t *testing.T, b *Broker, partition string, n int) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, "kill", damageGroup, &eventhubs.ConsumerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(c)
	r, err := c.NewPartitionClient(partition, &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(r)
	props, err := c.GetPartitionProperties(ctx, partition, nil)
	if err != nil {
		return nil, err
	}
	n = min(n, int(props.LastEnqueuedSequenceNumber)+1)
	var got []string
	for len(got) < n {
		events, err := r.ReceiveEvents(ctx, 1, nil)
		for _, e := range events {
			got = append(got, fmt.Sprintf("%d at %s of %s: %v %v %x", e.SequenceNumber, e.Offset, e.EnqueuedTime, e.Properties, e.SystemProperties, e.Body))
		}
		if err != nil {
			return got, err
		}
	}
	return got, nil
}

// dataFiles reads what a data folder's log and database consist of. Keys,
// certificates and the lock are not stored data.
func dataFiles(t *testing.T, data string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(data, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(data, name)
		if err != nil {
			return err
		}
		if rel = filepath.ToSlash(rel); rel != "meta.db" && !strings.HasPrefix(rel, "logs/") && !strings.HasPrefix(rel, "journal/") {
			return nil
		}
		b, err := os.ReadFile(name)
		if len(bytes.TrimLeft(b, "\x00")) > 0 {
			files[rel] = b
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func copyData(t *testing.T, data string) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(data), "damaged")
	if out, err := exec.Command("cp", "-r", data, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

func flipBits(t *testing.T, name string, at int64, mask byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= mask
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}
