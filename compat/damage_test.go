package compat

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

var (
	flips      = flag.Int("flips", 60, "how many bytes of a data folder are damaged, one at a time")
	damageSeed = flag.Uint64("damage-seed", uint64(time.Now().UnixNano()), "seed of the bytes that are damaged")
)

// TestDamagedByte damages one byte of a cleanly stopped broker's data folder, at
// random, over and over: either verify names the place, or the byte meant
// nothing, and what is read is what was sent. A broker started on it never
// serves anything else, and serves the partitions that were not touched.
func TestDamagedByte(t *testing.T) {
	t.Logf("-damage-seed %d", *damageSeed)
	rng := rand.New(rand.NewPCG(*damageSeed, 1))
	b := Start(t)
	b.Hub("kill", killPartitions)
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
	whole := readAll(t, b)
	b.Stop()
	files := dataFiles(t, b.Data)
	names := slices.Sorted(maps.Keys(files))
	t.Logf("files: %v", files)

	found, started := map[string]int{}, 0
	for i := range *flips {
		// Every file has its turn, whatever its size: a journal is mostly zeros.
		name := names[rng.IntN(len(names))]
		if i%2 == 0 {
			for !strings.HasPrefix(name, "logs/") {
				name = names[rng.IntN(len(names))]
			}
		}
		at, flip := rng.Int64N(files[name]), byte(1)<<rng.IntN(8)
		damaged := copyData(t, b.Data)
		file := filepath.Join(damaged, filepath.FromSlash(name))
		flipByte(t, file, at, flip)
		where := fmt.Sprintf("%s at %d, bit mask %#x", name, at, flip)

		out, err := exec.Command(Binary(t), "verify", "--data", damaged).CombinedOutput()
		var exit *exec.ExitError
		named := false
		switch {
		case err == nil:
		case errors.As(err, &exit) && exit.ExitCode() == 1:
			named = strings.Contains(string(out), filepath.Base(name))
			if !named {
				t.Errorf("%s: verify does not name the file:\n%s", where, out)
			}
			found[filepath.Dir(name)]++
		default:
			t.Errorf("%s: verify: %v\n%s", where, err, out)
		}
		if !named || i%6 == 0 { // a start for each would take long
			started++
			b.startDamaged(t, damaged, where, named, whole)
		}
		if err := os.RemoveAll(damaged); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d bytes damaged; verify named %v; %d starts", *flips, found, started)
}

// startDamaged starts a broker on a damaged copy, and reads it.
func (b *Broker) startDamaged(t *testing.T, data, where string, named bool, whole map[string][]int64) {
	t.Helper()
	d := *b
	d.args = append(slices.Clone(b.args), "--data", data) // the last one counts
	var err error
	if d.log, err = os.Create(filepath.Join(d.Dir, "damaged.log")); err != nil {
		t.Fatal(err)
	}
	defer d.log.Close()
	if err := d.await(d.launch("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")); err != nil {
		if !named {
			t.Errorf("%s: verify finds nothing, and the broker does not start: %v", where, err)
		} else if !strings.Contains(err.Error(), filepath.Base(strings.Fields(where)[0])) {
			t.Errorf("%s: the broker does not start, and does not name the file: %v", where, err)
		}
		return
	}
	defer d.Stop()
	damaged := 0
	for partition := range killPartitions {
		id := strconv.Itoa(partition)
		want := whole["to "+id]
		got, err := readSome(t, &d, id, len(want))
		if !slices.Equal(got, want[:len(got)]) {
			t.Errorf("%s: partition %s gives what was not sent", where, id)
		}
		if err != nil || len(got) < len(want) {
			damaged++
			t.Logf("%s: partition %s gives %d of %d events, and then %v", where, id, len(got), len(want), err)
			if err == nil || !strings.Contains(d.Log(), "damage") {
				t.Errorf("%s: partition %s gives %d of %d events, and nobody says why (%v)", where, id, len(got), len(want), err)
			}
		}
	}
	if damaged > 1 || damaged > 0 && !named {
		t.Errorf("%s: %d partitions can't be read to their ends (verify said so: %v)", where, damaged, named)
	}
}

// readSome reads up to n events of a partition, whose numbers it returns.
func readSome(t *testing.T, b *Broker, partition string, n int) ([]int64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, "kill", eventhubs.DefaultConsumerGroup, &eventhubs.ConsumerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
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
	var got []int64
	for len(got) < n {
		events, err := r.ReceiveEvents(ctx, 1, nil)
		for _, e := range events {
			number, _ := e.Properties["number"].(int64)
			if want := fmt.Sprintf("to %s/%d", partition, number); strings.TrimRight(string(e.Body), "\x00") != want {
				return got, fmt.Errorf("a body that was not sent: %.40q", e.Body)
			}
			got = append(got, number)
		}
		if err != nil {
			return got, err
		}
	}
	return got, nil
}

// dataFiles lists what a data folder's log and database consist of, with sizes.
// Keys, certificates and the lock are not stored data.
func dataFiles(t *testing.T, data string) map[string]int64 {
	t.Helper()
	files := map[string]int64{}
	err := filepath.WalkDir(data, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(data, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if rel = filepath.ToSlash(rel); rel == "meta.db" || strings.HasPrefix(rel, "logs/") || strings.HasPrefix(rel, "journal/") {
			if info.Size() > 0 {
				files[rel] = info.Size()
			}
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

func flipByte(t *testing.T, name string, at int64, mask byte) {
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
