// rawlog is the least a durable Go log server can do: read a frame, check its
// CRC32C, append it to a file, acknowledge; and serve it back with sendfile.
// Its CPU per gigabyte is the floor for a broker that treats batches as opaque.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"
)

var tab = crc32.MakeTable(crc32.Castagnoli)

func main() {
	c := lg.Flags("127.0.0.1:5699")
	frame := flag.Int("frame", 64<<10, "bytes per frame")
	window := flag.Int("window", 16, "frames in flight")
	sync_ := flag.String("sync", "none", "server: none | group (one fdatasync per group of buffered frames) | prealloc (group, into a zero-filled file)")
	dir := flag.String("dir", os.TempDir(), "server: data directory")
	c.Parse()
	switch c.Mode {
	case "serve":
		ln, err := net.Listen("tcp", c.Addr)
		lg.Die(err)
		fmt.Println("ready", ln.Addr())
		var id int
		for {
			cn, err := ln.Accept()
			lg.Die(err)
			id++
			go serve(cn, filepath.Join(*dir, fmt.Sprintf("raw.%d.log", id)), *sync_)
		}
	case "produce":
		var wg sync.WaitGroup
		per := *frame / c.Size
		frames := c.N / per / c.Parts
		conns := make([]net.Conn, c.Parts)
		for i := range conns {
			cn, err := net.Dial("tcp", c.Addr)
			lg.Die(err)
			conns[i] = cn
		}
		r := c.Begin("rawlog")
		r.Note = fmt.Sprintf("frame=%d window=%d", *frame, *window)
		var rec lg.Recorder
		for _, cn := range conns {
			wg.Go(func() {
				pay := lg.NewPayloads(*frame).Next()
				h := make([]byte, 8)
				binary.BigEndian.PutUint32(h, uint32(len(pay)))
				binary.BigEndian.PutUint32(h[4:], crc32.Checksum(pay, tab))
				sent := make(chan time.Time, *window)
				done := make(chan struct{})
				go func() {
					defer close(done)
					b := make([]byte, 4)
					for range frames {
						if _, err := io.ReadFull(cn, b); err != nil {
							lg.Die(err)
						}
						rec.Add(time.Since(<-sent))
					}
				}()
				for range frames {
					sent <- time.Now()
					bufs := net.Buffers{h, pay}
					_, err := bufs.WriteTo(cn)
					lg.Die(err)
				}
				<-done
			})
		}
		wg.Wait()
		r.End(int64(frames*per*c.Parts), map[string]lg.Pct{"ack": rec.Pct(.1)})
	}
}

func serve(cn net.Conn, name, mode string) {
	defer cn.Close()
	f, err := os.Create(name)
	lg.Die(err)
	defer os.Remove(name)
	defer f.Close()
	if mode == "prealloc" {
		z := make([]byte, 1<<20)
		for range 2048 {
			f.Write(z)
		}
		f.Sync()
		f.Seek(0, 0)
	}
	r := bufio.NewReaderSize(cn, 256<<10)
	var h [8]byte
	buf := make([]byte, 0, 1<<20)
	acks := make([]byte, 0, 1024)
	for {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(h[:]))
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := io.ReadFull(r, buf); err != nil {
			return
		}
		if crc32.Checksum(buf, tab) != binary.BigEndian.Uint32(h[4:]) {
			return
		}
		f.Write(buf)
		acks = append(acks, 0, 0, 0, 0)
		if r.Buffered() < 8 || len(acks) >= 4*64 {
			if mode != "none" {
				syscall.Fdatasync(int(f.Fd()))
			}
			cn.Write(acks)
			acks = acks[:0]
		}
	}
}
