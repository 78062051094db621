package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// The engine's own facts stand in the database under these keys, each value
// followed by a CRC32C of key and value, since bbolt checks neither.
const (
	keyEpoch       = "epoch"        // u64, of the current owner
	keyGeneration  = "generation"   // u64, the last one given to a journal file
	keyMetaVersion = "meta-version" // u64, the last one given to a Meta entry
	journalKeys    = "journal/"     // + generation in hexadecimal: salt u64, file name
	deletedKeys    = "deleted/"     // + log id: deleted, and the journal may have records of it
	damageKeys     = "damage/"      // + log id: JSON, the damage that recovery found
	keptKeys       = "kept/"        // + file name: a journal file not to be used again
)

func seal(key string, value []byte) []byte {
	c := crc32.Update(crc32.Checksum([]byte(key), event.Castagnoli), event.Castagnoli, value)
	return binary.LittleEndian.AppendUint32(append([]byte{}, value...), c)
}

// unseal returns what seal was given; the slice is b's.
func unseal(key string, b []byte) ([]byte, error) {
	n := len(b) - 4
	if n < 0 || binary.LittleEndian.Uint32(b[n:]) != crc32.Update(crc32.Checksum([]byte(key), event.Castagnoli), event.Castagnoli, b[:n]) {
		return nil, fmt.Errorf("%s: the value of %q does not match its checksum; restore the data folder from a backup", kvFile, key)
	}
	return b[:n:n], nil
}

// getNumber reads a counter, 0 if it is not there.
func getNumber(tx KVTx, key string) (uint64, error) {
	b := tx.Get(bucketEngine, key)
	if b == nil {
		return 0, nil
	}
	v, err := unseal(key, b)
	if err == nil && len(v) != 8 {
		err = fmt.Errorf("%s: the value of %q is not a number", kvFile, key)
	}
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(v), nil
}

// bump adds one to a counter and returns it.
func bump(tx KVTx, key string) (uint64, error) {
	n, err := getNumber(tx, key)
	if err != nil {
		return 0, err
	}
	n++
	return n, tx.Put(bucketEngine, key, seal(key, binary.LittleEndian.AppendUint64(nil, n)))
}

// eachEngine calls fn for the keys that begin with prefix, with what follows it
// and the value.
func eachEngine(tx KVTx, prefix string, fn func(rest string, value []byte) error) error {
	var fault error
	tx.Each(bucketEngine, prefix, func(key string, b []byte) bool {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			return false
		}
		var v []byte
		if v, fault = unseal(key, b); fault == nil {
			fault = fn(rest, v)
		}
		return fault == nil
	})
	return fault
}

// checkEngine refuses a database with a key that this program does not know:
// then another key is missing, and events with it.
func checkEngine(tx KVTx) error {
	var fault error
	tx.Each(bucketEngine, "", func(key string, b []byte) bool {
		_, fault = unseal(key, b)
		known := key == keyEpoch || key == keyGeneration || key == keyMetaVersion
		for _, p := range []string{journalKeys, deletedKeys, damageKeys, keptKeys} {
			known = known || strings.HasPrefix(key, p)
		}
		if !known && fault == nil {
			fault = fmt.Errorf("%s: %q is no key of this version's; restore the data folder from a backup", kvFile, key)
		}
		return fault == nil
	})
	return fault
}

func journalKey(gen uint64) string     { return fmt.Sprintf("%s%016x", journalKeys, gen) }
func deletedKey(id store.LogID) string { return deletedKeys + id.String() }
func damageKey(id store.LogID) string  { return damageKeys + id.String() }

// generation is the entry of a journal file that recovery must read.
type generation struct {
	gen  uint64
	salt salt
	name string
}

func (g *generation) put(tx KVTx) error {
	key := journalKey(g.gen)
	b := binary.LittleEndian.AppendUint64(nil, uint64(g.salt))
	return tx.Put(bucketEngine, key, seal(key, append(b, g.name...)))
}

func (g *generation) decode(rest string, b []byte) error {
	var err error
	if g.gen, err = strconv.ParseUint(rest, 16, 64); err != nil || len(b) < 8 || journalKey(g.gen) != journalKeys+rest {
		return fmt.Errorf("%s: the entry %q of the journal can't be read", kvFile, rest)
	}
	g.salt, g.name = salt(binary.LittleEndian.Uint64(b)), string(b[8:])
	return nil
}
