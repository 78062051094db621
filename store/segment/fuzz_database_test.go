package segment

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/store"
)

// FuzzDatabase changes some bytes of the database file: it opens, or says why
// not, as Verify does; its pages can then be checked and read without a fault that
// ends the program; and a value that is taken is one that was written, since each
// has a checksum of its own.
func FuzzDatabase(f *testing.F) {
	dir := f.TempDir()
	name := filepath.Join(dir, kvFile)
	kv, err := openBolt(name, false)
	if err != nil {
		f.Fatal(err)
	}
	written := map[string][]byte{}
	err = kv.Update(func(tx KVTx) error {
		for i := range 60 {
			id := store.LogID{Hub: uint64(i / 4), Partition: uint32(i % 4)}
			c := checkpoint{segment: 1, offset: int64(i), next: 7}
			written[id.String()] = c.encode(id)
			if err := tx.Put(bucketLogs, id.String(), c.encode(id)); err != nil {
				return err
			}
			key := "blob/" + id.String()
			written[key] = sealMeta(key, 1, bytes.Repeat([]byte{byte(i)}, 100*i))
			if err := tx.Put(bucketMeta, key, written[key]); err != nil {
				return err
			}
		}
		_, err := bump(tx, keyEpoch)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	if err := kv.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	page := uint32(os.Getpagesize())
	for p := range uint32(len(whole)) / page {
		if p > 6 && p%10 != 0 {
			continue
		}
		f.Add(p*page, []byte{7}, false)
		f.Add(p*page+8, []byte{0xff}, false)                            // kind
		f.Add(p*page+10, []byte{0xff, 0xff}, false)                     // count
		f.Add(p*page+12, []byte{0xff, 0xff, 0xff, 0x7f}, false)         // overflow
		f.Add(p*page+16, bytes.Repeat([]byte{0xff}, 16), false)         // first element
		f.Add(p*page+16+8, []byte{byte(p), 0, 0, 0, 0, 0, 0, 0}, false) // itself
		f.Add(p*page, []byte{}, true)
	}
	f.Fuzz(func(t *testing.T, off uint32, patch []byte, cut bool) {
		if int(off) > len(whole) {
			return
		}
		b := bytes.Clone(whole)
		copy(b[off:], patch)
		if cut {
			b = b[:off]
		}
		name := filepath.Join(t.TempDir(), kvFile)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		kv, err := openBolt(name, true)
		if err != nil {
			return
		}
		defer kv.Close()
		_ = kv.(*boltKV).check()
		_ = kv.View(checkEngine)
		for _, bucket := range buckets {
			n := 0
			_ = kv.View(func(tx KVTx) error {
				tx.Each(bucket, "", func(key string, v []byte) bool {
					if _, err := unseal(key, v); err == nil && bucket == bucketLogs && !bytes.Equal(v, written[key]) {
						t.Fatalf("%q has a value that was not written", key)
					}
					n++
					return n < 1000
				})
				return nil
			})
		}
		_ = kv.View(func(tx KVTx) error {
			for key := range written {
				tx.Get(bucketMeta, key)
			}
			return nil
		})
	})
}
