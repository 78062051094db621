package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// reader reads JSON by its tokens, so that it knows of a key that comes twice,
// which encoding/json passes over, and builds nothing that is not asked for.
// Its errors are full sentences for the client.
type reader struct {
	d *json.Decoder
}

// newReader reads text, which must be UTF-8.
func newReader(text []byte) (*reader, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("It is not UTF-8 text.")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return &reader{d}, nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends too early")
	}
	return fmt.Errorf("It is not JSON: %s.", strings.TrimPrefix(err.Error(), "json: "))
}

// scalar reads a value: nil, a bool, a json.Number or a string. what names it.
func (r *reader) scalar(what string) (any, error) {
	t, err := r.d.Token()
	if err != nil {
		return nil, notJSON(err)
	}
	if _, nested := t.(json.Delim); nested {
		return nil, fmt.Errorf("%s is an object or a list; it may be a string, a number, true, false or null.", what)
	}
	return t, nil
}

// open reads the beginning of an object or a list; false for null.
func (r *reader) open(delim json.Delim, what string) (bool, error) {
	t, err := r.d.Token()
	if err != nil {
		return false, notJSON(err)
	}
	if t == nil {
		return false, nil
	}
	if t != delim {
		kind := "an object"
		if delim == '[' {
			kind = "a list"
		}
		return false, fmt.Errorf("%s is not %s.", what, kind)
	}
	return true, nil
}

// object reads an object, or null, which is one without keys. each is called for
// every key and must read its value. fold says how keys are compared.
func (r *reader) object(what string, fold func(string) string, each func(key string) error) error {
	if some, err := r.open('{', what); !some || err != nil {
		return err
	}
	var seen map[string]bool
	for r.d.More() {
		t, err := r.d.Token()
		if err != nil {
			return notJSON(err)
		}
		key := t.(string)
		if seen[fold(key)] {
			return fmt.Errorf("%s has the key %q twice.", what, key)
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[fold(key)] = true
		if err := each(key); err != nil {
			return err
		}
	}
	return r.close()
}

// list reads a list. each is called for every element and must read it.
func (r *reader) list(what string, each func(i int) error) error {
	some, err := r.open('[', what)
	if err == nil && !some {
		err = fmt.Errorf("%s is not a list.", what)
	}
	for i := 0; err == nil; i++ {
		if !r.d.More() {
			return r.close()
		}
		err = each(i)
	}
	return err
}

func (r *reader) close() error {
	if _, err := r.d.Token(); err != nil {
		return notJSON(err)
	}
	return nil
}

// maxDepth is how deep a value may be that nobody asks for. What is asked for has
// two levels.
const maxDepth = 64

// skip reads a value that nobody asks for.
func (r *reader) skip() error {
	for depth := 0; ; {
		t, err := r.d.Token()
		if err != nil {
			return notJSON(err)
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxDepth {
				return fmt.Errorf("It is nested deeper than %d levels.", maxDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// end checks that nothing follows.
func (r *reader) end() error {
	if _, err := r.d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("Something follows the JSON value.")
	}
	return nil
}

// exact compares keys as they are.
func exact(key string) string { return key }

// number is an int64 if n is written as a whole number, else a float64; false if
// it fits neither.
func number(n json.Number) (any, bool) {
	if !strings.ContainsAny(n.String(), ".eE") {
		i, err := strconv.ParseInt(n.String(), 10, 64)
		return i, err == nil
	}
	f, err := n.Float64()
	return f, err == nil
}
