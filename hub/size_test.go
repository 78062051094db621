package hub_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/hub"
)

// TestSizeLimit: a hub that is limited keeps its newest events, and near as many
// bytes as it may, in each partition alike.
func TestSizeLimit(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("orders", 2, hub.Settings{Retention: -1, MaxBytes: 4 << 20})
	for _, bad := range []int64{-1, 1, hub.MinMaxBytes - 1} {
		if err := h.Update(ctx, func(s *hub.Settings) error { s.MaxBytes = bad; return nil }); kind(err) != hub.InvalidArgument {
			t.Errorf("%d bytes: %v", bad, err)
		}
	}
	body := strings.Repeat("x", 10_000)
	for range 1000 {
		w.append(h.At(0), 1, body)
		w.all.Expire(ctx)
	}
	w.append(h.At(1), 3, "y")
	i, err := h.At(0).Info(ctx)
	if err != nil || i.Bytes > 2<<20+100_000 || i.Bytes < 1<<20 || i.Next != 1000 || i.First == 0 {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err = h.At(1).Info(ctx); err != nil || i.First != 0 || i.Next != 3 {
		t.Errorf("of the other partition: %+v, %v", i, err)
	}
	// A lower limit takes effect on what there is.
	if err := h.Update(ctx, func(s *hub.Settings) error { s.MaxBytes = 1 << 20; return nil }); err != nil {
		t.Fatal(err)
	}
	w.all.Expire(ctx)
	if i, err = h.At(0).Info(ctx); err != nil || i.Bytes > 512<<10+100_000 || i.Next != 1000 {
		t.Errorf("with a lower limit: %+v, %v", i, err)
	}
}
