package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHiddenElements flips the bits of small numbers anywhere in a database, the
// counts of its pages among them: no key goes missing without a word.
func TestHiddenElements(t *testing.T) {
	for name, keys := range map[string]int{"pages within values": 3, "pages": 40} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), kvFile)
			kv, err := openBolt(file, false)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // both copies of what leads to the tree lead to this one, or one like it
				err = kv.Update(func(tx KVTx) error {
					for _, b := range buckets {
						for i := range keys {
							if err := tx.Put(b, fmt.Sprint("key", i), []byte(strings.Repeat("v", keys))); err != nil {
								return err
							}
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := kv.Close(); err != nil {
				t.Fatal(err)
			}
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := countKeys(file); err != nil || n != keys*len(buckets) {
				t.Fatalf("%d keys, %v", n, err)
			}
			found := 0
			for at, b := range whole {
				if b == 0 || b > 64 {
					continue
				}
				for bit := byte(1); bit <= b; bit <<= 1 {
					f, err := os.OpenFile(file, os.O_WRONLY, 0)
					if err != nil {
						t.Fatal(err)
					}
					f.WriteAt([]byte{b ^ bit}, int64(at)) //nolint:errcheck // what is read tells
					n, err := countKeys(file)
					if err != nil {
						found++
					} else if n != keys*len(buckets) {
						t.Errorf("byte %d, %d for %d: %d of %d keys, and no word of it", at, b^bit, b, n, keys*len(buckets))
					}
					f.WriteAt([]byte{b}, int64(at)) //nolint:errcheck // see above
					f.Close()
				}
			}
			if found == 0 {
				t.Error("nothing was found")
			}
		})
	}
}

func countKeys(file string) (n int, err error) {
	kv, err := openBolt(file, true)
	if err != nil {
		return 0, err
	}
	defer kv.Close()
	if err := kv.(*boltKV).check(); err != nil {
		return 0, err
	}
	err = kv.View(func(tx KVTx) error {
		for _, b := range buckets {
			tx.Each(b, "", func(string, []byte) bool { n++; return true })
		}
		return nil
	})
	return n, err
}

// TestPagesInACircle: a database whose tree leads back to itself is refused, by a
// start too. To search in it would never end.
func TestPagesInACircle(t *testing.T) {
	file := filepath.Join(t.TempDir(), kvFile)
	kv, err := openBolt(file, false)
	if err != nil {
		t.Fatal(err)
	}
	err = kv.Update(func(tx KVTx) error {
		for i := range 2000 {
			if err := tx.Put(buckets[0], fmt.Sprintf("key%06d", i), []byte("value")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	le, page, circles := binary.LittleEndian, os.Getpagesize(), 0
	for at := 2 * page; at+page <= len(b); at += page {
		if le.Uint16(b[at+8:]) == pageBranch && le.Uint64(b[at:]) == uint64(at/page) {
			le.PutUint64(b[at+pageHead+8:], uint64(at/page)) // its first child is itself
			circles++
		}
	}
	if circles == 0 {
		t.Fatal("the database has no branches")
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{true, false} {
		kv, err := openBolt(file, readOnly)
		if err == nil {
			kv.Close()
		}
		if !errors.Is(err, errPageTwice) || !strings.Contains(err.Error(), "restore the data folder from a backup") {
			t.Errorf("read only %v: %v", readOnly, err)
		}
	}
}
