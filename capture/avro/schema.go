package avro

import (
	"bufio"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/klauspost/compress/flate"
)

// maxMetadata bounds a header's metadata; ours and the service's has 460 bytes.
const maxMetadata = 1 << 20

// maxFields bounds a schema's fields.
const maxFields = 100

// typ is one of the types that fields of captured files have.
type typ uint8

const (
	typeNull typ = iota
	typeBoolean
	typeLong // and int: encoded alike
	typeFloat
	typeDouble
	typeString
	typeBytes
)

var typeNames = map[string]typ{
	"null": typeNull, "boolean": typeBoolean, "int": typeLong, "long": typeLong,
	"float": typeFloat, "double": typeDouble, "string": typeString, "bytes": typeBytes,
}

// types is a simple type, or a union of some.
type types struct {
	of    []typ
	union bool
}

// field is a field of the file's own schema.
type field struct {
	name  string
	types types // of a map: its values'
	isMap bool
}

// wanted are the fields that a row is made of, with the types that it can take
// each from.
var wanted = []struct {
	name  string
	isMap bool
	types []typ
}{
	{"SequenceNumber", false, []typ{typeLong}},
	{"Offset", false, []typ{typeString, typeLong}},
	{"EnqueuedTimeUtc", false, []typ{typeString}},
	{"SystemProperties", true, nil},
	{"Properties", true, nil},
	{"Body", false, []typ{typeNull, typeBytes, typeString}},
}

// header reads what stands before the first block.
func (r *Reader) header() error {
	in := &r.file
	var magic [4]byte
	if err := in.full(magic[:]); err != nil {
		return err
	}
	if string(magic[:]) != "Obj\x01" {
		return bad("it begins with % x, an Avro file with 4f 62 6a 01", magic)
	}
	meta, err := r.metadata()
	if err != nil {
		return err
	}
	if err := in.full(r.sync[:]); err != nil {
		return err
	}
	r.schema = meta["avro.schema"]
	switch r.codec = Codec(meta["avro.codec"]); r.codec {
	case "":
		r.codec = CodecNull
	case CodecNull:
	case CodecDeflate:
		r.flate = flate.NewReader(in)
		r.plain = bufio.NewReaderSize(nothing{}, BlockSize)
	default:
		return bad("its codec is %.40q; captured files have null or deflate", r.codec)
	}
	r.fields, err = parseSchema(r.schema)
	return err
}

// metadata reads the header's map.
func (r *Reader) metadata() (map[string]string, error) {
	in := &r.file
	meta := map[string]string{}
	for total := int64(0); ; {
		n, err := in.long()
		if err != nil {
			return nil, err
		}
		if n < 0 {
			if _, err := in.long(); err != nil {
				return nil, err
			}
			n = -n
		}
		if n == 0 {
			return meta, nil
		}
		if n < 0 || n > maxMetadata {
			return nil, bad("a header of %d entries", n)
		}
		for range n {
			var entry [2]string
			for i := range entry {
				size, err := in.long()
				if err != nil {
					return nil, err
				}
				if total++; size < 0 || size > maxMetadata-total {
					return nil, bad("a header with an entry of %d bytes", size)
				}
				total += size
				b, err := in.append(nil, int(size))
				if err != nil {
					return nil, err
				}
				entry[i] = string(b)
			}
			meta[entry[0]] = entry[1]
		}
	}
}

// parseSchema reads a file's schema: a record whose fields are simple.
func parseSchema(text string) ([]field, error) {
	var record struct {
		Type   string
		Fields []struct {
			Name string
			Type json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(text), &record); err != nil {
		return nil, bad("its schema is not that of a record: %v", err)
	}
	if record.Type != "record" {
		return nil, bad("its schema is that of a %.40q, not of a record", record.Type)
	}
	if len(record.Fields) > maxFields {
		return nil, bad("its schema has %d fields; captured files have six", len(record.Fields))
	}
	var fields []field
	for _, f := range record.Fields {
		if slices.ContainsFunc(fields, func(x field) bool { return x.name == f.Name }) {
			return nil, bad("its schema has the field %.40q twice", f.Name)
		}
		x, err := parseField(f.Name, f.Type)
		if err != nil {
			return nil, bad("its schema's field %.40q: %v", f.Name, err)
		}
		fields = append(fields, x)
	}
	for _, w := range wanted {
		i := slices.IndexFunc(fields, func(x field) bool { return x.name == w.name })
		if i < 0 {
			return nil, bad("its schema has no field %s: it was not captured from an event hub", w.name)
		}
		if fields[i].isMap != w.isMap {
			return nil, bad("its schema's field %s has a type that captured files don't have", w.name)
		}
		for _, t := range fields[i].types.of {
			if w.types != nil && !slices.Contains(w.types, t) {
				return nil, bad("its schema's field %s has a type that captured files don't have", w.name)
			}
		}
	}
	return fields, nil
}

func parseField(name string, raw json.RawMessage) (field, error) {
	f := field{name: name}
	var object struct {
		Type   string
		Values json.RawMessage
	}
	if len(raw) > 0 && raw[0] == '{' {
		if err := json.Unmarshal(raw, &object); err != nil {
			return f, fmt.Errorf("its type is no simple one: %w", err)
		}
		if object.Type == "map" {
			f.isMap, raw = true, object.Values
		}
	}
	var err error
	f.types, err = parseTypes(raw)
	return f, err
}

// parseTypes reads the name of a simple type, one with attributes, or a union.
func parseTypes(raw json.RawMessage) (types, error) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		t, err := parseType(raw)
		return types{of: []typ{t}}, err
	}
	if len(list) == 0 || len(list) > len(typeNames) {
		return types{}, fmt.Errorf("a union of %d types", len(list))
	}
	u := types{union: true}
	for _, raw := range list {
		t, err := parseType(raw)
		if err != nil {
			return u, err
		}
		u.of = append(u.of, t)
	}
	return u, nil
}

func parseType(raw json.RawMessage) (typ, error) {
	var name string
	var object struct{ Type string }
	if json.Unmarshal(raw, &name) != nil {
		if err := json.Unmarshal(raw, &object); err != nil {
			return 0, fmt.Errorf("the type %.80s is no simple one", raw)
		}
		name = object.Type
	}
	t, ok := typeNames[name]
	if !ok {
		return 0, fmt.Errorf("the type %.80s is no simple one", raw)
	}
	return t, nil
}
