package compat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	goamqp "github.com/Azure/go-amqp"
)

// smallDisk mounts a file system of its own that is small enough to fill.
func smallDisk(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root on Linux")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", dir).CombinedOutput(); err != nil {
		skip := t.Skipf // as in a container without the right
		if os.Getenv("CI") != "" {
			skip = t.Fatalf
		}
		skip("a small file system can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestFullDisk fills the disk below a broker, up to its reserve and to the last byte:
// what is sent is refused so that an SDK tries again, what is stored can be read,
// and once there is room again everything goes on, with nothing acknowledged lost.
func TestFullDisk(t *testing.T) {
	for _, x := range []struct {
		reserve string
		leave   int
	}{{"64MiB", 48 << 20}, {"8MiB", 0}, {"off", 0}} {
		t.Run(fmt.Sprintf("reserve %s, %d MiB left", x.reserve, x.leave>>20), func(t *testing.T) {
			disk := smallDisk(t)
			b := Start(t, "--data", filepath.Join(disk, "data"))
			b.Data = filepath.Join(disk, "data")
			config, err := os.OpenFile(filepath.Join(b.Dir, "config.yaml"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(config, "reserve: %s\n", x.reserve)
			if err := config.Close(); err != nil {
				t.Fatal(err)
			}
			b.Stop()
			b.Restart()
			fillAndFree(t, b, filepath.Join(disk, "filler"), x.leave)
		})
	}
}

const busy, timeout = goamqp.ErrCond("com.microsoft:server-busy"), goamqp.ErrCond("com.microsoft:timeout")

func fillAndFree(t *testing.T, b *Broker, filler string, leave int) {
	b.Hub("kill", killPartitions)
	var life lives
	s := &stream{name: "to 0", partition: "0", padding: 20_000}
	never := eventhubs.RetryOptions{MaxRetries: -1}
	producer := func(retry eventhubs.RetryOptions) *eventhubs.ProducerClient {
		p, err := eventhubs.NewProducerClientFromConnectionString(b.ConnectionString, "kill", &eventhubs.ProducerClientOptions{RetryOptions: retry})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeSoon(p) })
		return p
	}
	p := producer(never)
	for range 20 {
		if err := s.send(t.Context(), p, &life); err != nil {
			t.Fatal(err)
		}
	}

	fillDisk(t, filler, leave)
	refused := map[goamqp.ErrCond]int{}
	for range 10_000 {
		err := s.send(t.Context(), p, &life)
		if err == nil {
			continue // there is room in what the broker has set aside
		}
		var e *goamqp.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		var coded *eventhubs.Error
		if errors.As(err, &coded) && coded.Code != eventhubs.ErrorCodeConnectionLost {
			t.Errorf("the SDK has the code %s for %v", coded.Code, err) // it gives up on all others
		}
		if refused[e.Condition]++; refused[e.Condition] == 1 {
			t.Logf("after %d events, a send is refused with %v", s.acked, err)
		}
		if refused[busy]+refused[timeout] == 20 {
			break
		}
	}
	// Both are among those upon which the SDKs send again. Only the send that
	// finds the last byte taken can't be told whether it was stored.
	if n := refused[timeout]; refused[busy]+n < 20 || n > 1 || n > 0 && leave > 0 {
		t.Fatalf("sends were refused with %v", refused)
	}
	s.check(t, readAll(t, b)[s.name], false)
	blobs, err := chainClient(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.CreateContainer(t.Context(), "full", nil); err == nil {
		_, err = blobs.UploadBuffer(t.Context(), "full", "blob", make([]byte, 1<<20), &azblob.UploadBufferOptions{})
		t.Logf("a blob of 1 MiB: %v", err)
		if err == nil && leave == 0 {
			t.Error("a blob was stored on a full disk")
		}
	} else {
		t.Logf("a container is refused with %v", err)
	}

	// An SDK that may try again gets through as soon as there is room.
	patient := producer(eventhubs.RetryOptions{MaxRetries: 1000, RetryDelay: 50 * time.Millisecond, MaxRetryDelay: 200 * time.Millisecond})
	waiting := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		waiting <- s.send(ctx, patient, &life)
	}()
	select {
	case err := <-waiting:
		t.Fatalf("sent to a full disk: %v", err)
	case <-time.After(time.Second):
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Fatalf("once there is room: %v", err)
	}
	for range 20 {
		for _, p := range []*eventhubs.ProducerClient{p, patient} { // also the one that was refused
			if err := s.send(t.Context(), p, &life); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.check(t, readAll(t, b)[s.name], false)

	// And it is all there after a kill, on a disk that is full again.
	fillDisk(t, filler, 0)
	b.Kill()
	b.Restart()
	s.check(t, readAll(t, b)[s.name], false)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.Kill()
	b.Restart()
	if err := s.send(t.Context(), patient, &life); err != nil {
		t.Fatal(err)
	}
	s.check(t, readAll(t, b)[s.name], false)
	b.Stop()
	if out, err := exec.Command(Binary(t), "verify", "--data", b.Data).CombinedOutput(); err != nil {
		t.Errorf("millrace verify: %v\n%s", err, out)
	}
	t.Logf("%d events acknowledged, %v refused; the log says\n%s", s.acked, refused, linesWith(b.Log(), "disk"))
}

// fillDisk writes a file until nothing more fits, and then leaves so many bytes.
func fillDisk(t *testing.T, name string, leave int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; size /= 2 {
		for b := make([]byte, size); ; {
			if _, err := f.Write(b); err != nil {
				break
			}
		}
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		err = f.Truncate(at - int64(leave))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func linesWith(text, word string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "level=") && strings.Contains(line, word) {
			out.WriteString(line)
		}
	}
	return out.String()
}
