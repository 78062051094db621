package compat

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// thief is a proxy that reads what the broker says, and now and then, instead of
// an acknowledgement, cuts the connection: the events are stored, and their
// producer does not know.
type thief struct {
	ln     net.Listener
	broker string
	stolen atomic.Int64
	took   chan struct{} // has one when some were stolen since it was last read
	wg     sync.WaitGroup

	mu    sync.Mutex
	share float64 // of acknowledgements
	rng   *rand.Rand
}

func newThief(t *testing.T, broker string, share float64, seed uint64) *thief {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &thief{ln: ln, broker: broker, share: share, took: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(seed, 2))}
	x.wg.Go(x.run)
	t.Cleanup(func() {
		ln.Close()
		x.wg.Wait()
	})
	return x
}

// connectionString leads to the broker through the thief.
func (x *thief) connectionString() string {
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;", x.ln.Addr())
}

func (x *thief) run() {
	for {
		client, err := x.ln.Accept()
		if err != nil {
			return
		}
		x.wg.Go(func() {
			defer client.Close()
			broker, err := net.Dial("tcp", x.broker)
			for try := 0; err != nil && try < 100; try++ { // it is being started
				time.Sleep(20 * time.Millisecond)
				broker, err = net.Dial("tcp", x.broker)
			}
			if err != nil {
				return
			}
			defer broker.Close()
			x.wg.Go(func() {
				io.Copy(broker, client) //nolint:errcheck // either side may end it
				broker.Close()
			})
			x.relay(client, broker)
		})
	}
}

// relay passes on what the broker says, frame by frame.
func (x *thief) relay(client io.Writer, broker io.Reader) {
	const begin, attach, disposition = "\x00\x53\x11", "\x00\x53\x12", "\x00\x53\x15"
	sending := map[uint16]bool{} // sessions with links to partitions, not of tokens or requests
	r := bufio.NewReader(broker)
	for {
		head, err := r.Peek(8)
		if err != nil {
			return
		}
		size := 8 // of a protocol header
		if !bytes.HasPrefix(head, []byte("AMQP")) {
			size = int(binary.BigEndian.Uint32(head))
		}
		frame := make([]byte, size)
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		channel, body := binary.BigEndian.Uint16(frame[6:]), frame[8:]
		switch {
		case bytes.HasPrefix(body, []byte(begin)):
			sending[channel] = false
		case bytes.HasPrefix(body, []byte(attach)):
			sending[channel] = sending[channel] || bytes.Contains(body, []byte("/Partitions/"))
		case bytes.HasPrefix(body, []byte(disposition)) && sending[channel] && x.takes():
			return
		}
		if _, err := client.Write(frame); err != nil {
			return
		}
	}
}

func (x *thief) takes() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rng.Float64() >= x.share {
		return false
	}
	x.stolen.Add(1)
	select {
	case x.took <- struct{}{}:
	default:
	}
	return true
}

// stop lets everything through from now on.
func (x *thief) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.share = 0
}
