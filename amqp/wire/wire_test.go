package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/millrace/millrace/amqp/wire"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The frames are those of recordings of the service's clients and of the
// service, put together by hand from amqp.md.
func TestPerformatives(t *testing.T) {
	for _, c := range []struct{ name, hex, again string }{
		{"accepted disposition", "005315 c0 0b 06 41 5207 40 41 00532445 40", ""},
		{"begin", "005311 c0 15 08 600001 5201 70 00001388 70 00010000 52ff 40 40 40", ""},
		{"begin with a symbolic descriptor", "00 a3 0f 616d71703a626567696e3a6c697374 c0 07 04 40 43 5205 5206", ""},
		{"detach", "005316 c0 04 03 43 41 40", ""},
		{"empty close", "005318 45", ""},
	} {
		body := unhex(t, c.hex)
		desc, list, n, err := wire.ReadPerformative(body)
		if err != nil || n != len(body) {
			t.Errorf("%s: %d of %d bytes, %v", c.name, n, len(body), err)
			continue
		}
		switch desc {
		case wire.DescBegin:
			var x wire.Begin
			if err := x.Decode(list); err != nil || x.IncomingWindow == 0 {
				t.Errorf("%s: %+v, %v", c.name, x, err)
			}
		case wire.DescDisposition:
			var x wire.Disposition
			if err := x.Decode(list); err != nil || x.First != 7 || x.Last != 7 || !x.Settled || !x.Role || !bytes.Equal(x.State.Full, wire.Accepted) {
				t.Errorf("%s: %+v, %v", c.name, x, err)
			}
		case wire.DescDetach:
			var x wire.Detach
			if err := x.Decode(list); err != nil || !x.Closed || x.Error != nil {
				t.Errorf("%s: %+v, %v", c.name, x, err)
			}
		}
	}
}

func TestRoundTrips(t *testing.T) {
	text := wire.AppendString(nil, "name")
	name, _, _ := wire.Read(text)
	for _, c := range []struct {
		desc  byte
		b     []byte
		again func(wire.Items) ([]byte, error)
	}{
		{wire.DescOpen, (&wire.Open{ContainerID: "c", Hostname: "h", MaxFrameSize: 65536, ChannelMax: 4999, IdleTimeout: 120000}).Append(nil),
			func(l wire.Items) ([]byte, error) { var x wire.Open; err := x.Decode(l); return x.Append(nil), err }},
		{wire.DescBegin, (&wire.Begin{RemoteChannel: wire.Optional{Value: 3, Set: true}, NextOutgoingID: 1, IncomingWindow: 5000, OutgoingWindow: 70, HandleMax: 255}).Append(nil),
			func(l wire.Items) ([]byte, error) { var x wire.Begin; err := x.Decode(l); return x.Append(nil), err }},
		{wire.DescAttach, (&wire.Attach{Name: name, Handle: 900, Role: true, MaxMessageSize: 1 << 20}).Append(nil),
			func(l wire.Items) ([]byte, error) { var x wire.Attach; err := x.Decode(l); return x.Append(nil), err }},
		{wire.DescFlow, (&wire.Flow{NextIncomingID: wire.Optional{Value: 1, Set: true}, IncomingWindow: 2, NextOutgoingID: 3, OutgoingWindow: 4,
			Handle: wire.Optional{Set: true}, DeliveryCount: wire.Optional{Value: 9, Set: true}, LinkCredit: wire.Optional{Value: 300, Set: true}, Echo: true}).Append(nil),
			func(l wire.Items) ([]byte, error) { var x wire.Flow; err := x.Decode(l); return x.Append(nil), err }},
		{wire.DescDetach, (&wire.Detach{Handle: 7, Closed: true, Error: &wire.Error{Condition: "amqp:not-found", Description: "gone"}}).Append(nil),
			func(l wire.Items) ([]byte, error) { var x wire.Detach; err := x.Decode(l); return x.Append(nil), err }},
		{wire.DescClose, wire.AppendClose(nil, &wire.Error{Condition: "a", Description: "b"}),
			func(l wire.Items) ([]byte, error) { return wire.AppendClose(nil, wire.DecodeEnding(l)), nil }},
	} {
		desc, list, n, err := wire.ReadPerformative(c.b)
		if err != nil || desc != c.desc || n != len(c.b) {
			t.Errorf("descriptor 0x%x: 0x%x, %d of %d bytes, %v", c.desc, desc, n, len(c.b), err)
			continue
		}
		again, err := c.again(list)
		if err != nil || !bytes.Equal(again, c.b) {
			t.Errorf("descriptor 0x%x: %v\n got %x\nwant %x", c.desc, err, again, c.b)
		}
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		hex  string
		want int64
	}{{"43", 0}, {"44", 0}, {"5007", 7}, {"5207", 7}, {"53ff", 255}, {"600100", 256}, {"7000000100", 256}, {"800000000000000100", 256},
		{"51ff", -1}, {"54ff", -1}, {"55ff", -1}, {"61ffff", -1}, {"71ffffffff", -1}, {"81ffffffffffffffff", -1}} {
		v, n, err := wire.Read(unhex(t, c.hex))
		if got, ok := v.Integer(); err != nil || n != len(c.hex)/2 || !ok || got != c.want {
			t.Errorf("%s: %d, %v, %v", c.hex, got, ok, err)
		}
	}
	for hex, want := range map[string]bool{"41": true, "42": false, "5601": true, "5600": false} {
		v, _, err := wire.Read(unhex(t, hex))
		if got, ok := v.Bool(); err != nil || !ok || got != want {
			t.Errorf("%s: %v, %v, %v", hex, got, ok, err)
		}
	}
	v, _, err := wire.Read(wire.AppendSymbols(nil, "MSSBCBS", "PLAIN"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := v.Symbols(func(s []byte) { got = append(got, string(s)) }); err != nil || strings.Join(got, " ") != "MSSBCBS PLAIN" {
		t.Errorf("symbols %q, %v", got, err)
	}
	long := make([]string, 300)
	v, _, err = wire.Read(wire.AppendStrings(nil, long...))
	if err != nil || v.Code != wire.CodeArray32 {
		t.Errorf("a long array has code 0x%x, %v", v.Code, err)
	}
}

func TestMalformed(t *testing.T) {
	for _, h := range []string{"", "46", "3f", "50", "a1", "a105616263", "b1ffffffff00", "d0", "00", "0053", "005310", "c0", "c1 02 01 40",
		strings.Repeat("00", 100) + "40", "d0 00000005 ffffffff 40", "d0 00000004 00000001"} {
		b := unhex(t, h)
		_, list, _, err := wire.ReadPerformative(b)
		if err == nil {
			var x wire.Attach
			err = x.Decode(list)
		}
		if !errors.Is(err, wire.ErrDecode) {
			t.Errorf("%s: %v", h, err)
		}
	}
	if _, err := wire.FrameSize([]byte{0, 0, 0, 7, 2, 0, 0, 0}, 100); !errors.Is(err, wire.ErrDecode) {
		t.Errorf("a short frame: %v", err)
	}
	if _, err := wire.FrameSize([]byte{0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0}, 65536); !errors.Is(err, wire.ErrDecode) {
		t.Errorf("a huge frame: %v", err)
	}
	if _, err := wire.ReadFrame([]byte{0, 0, 0, 8, 3, 0, 0, 0}); !errors.Is(err, wire.ErrDecode) {
		t.Errorf("a body beyond the frame: %v", err)
	}
}
