package blob

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelBlob is what a blob should be.
type modelBlob struct {
	content string
	owner   string
	etag    string
}

// TestModel runs random operations on a few blobs, beside a model in memory, with
// restarts and sweeps in between, and compares every answer.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		defer b.Close()
		c := b.container("con")
		model := map[string]*modelBlob{}
		staged := map[string]map[int]string{}
		etags := map[string]bool{} // all ever given
		names := []string{"a", "a/b", "a/c", "b"}

		name := func() string { return rapid.SampledFrom(names).Draw(rt, "name") }
		content := func() string {
			return strings.Repeat(rapid.SampledFrom([]string{"x", "yz"}).Draw(rt, "content"), rapid.SampledFrom([]int{0, 1, 10, maxInline/2 + 1, maxInline + 1}).Draw(rt, "times"))
		}
		// wrote notes the outcome of a write that should have been good or not.
		wrote := func(n string, a *answer, want int, m *modelBlob) {
			if a.status != want {
				rt.Fatalf("%s: %d %s, want %d", a.what, a.status, a.code(), want)
			}
			if want >= 300 {
				return
			}
			if m.etag = a.get("ETag"); etags[n+m.etag] {
				rt.Fatalf("%s: an ETag came twice", a.what)
			}
			etags[n+m.etag] = true
			model[n] = m
		}
		// condition draws headers, and whether they hold.
		condition := func(n string) ([]string, bool) {
			m := model[n]
			switch rapid.IntRange(0, 3).Draw(rt, "condition") {
			case 0:
				return []string{"If-None-Match", "*"}, m == nil
			case 1:
				if m != nil {
					return []string{"If-Match", strings.Trim(m.etag, `"`)}, true
				}
				return []string{"If-Match", `"0x1"`}, false
			case 2:
				return []string{"If-Match", `"0x1"`}, false
			}
			return nil, true
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				n, body := name(), content()
				headers, holds := condition(n)
				want := 201
				if !holds {
					if want = 412; headers[0] == "If-None-Match" {
						want = 409
					}
				}
				wrote(n, b.put(c+"/"+n, body, append(headers, "x-ms-meta-ownerid", "put")...), want, &modelBlob{content: body, owner: "put"})
				if want == 201 {
					delete(staged, n)
				}
			},
			"claim": func(rt *rapid.T) {
				n := name()
				headers, holds := condition(n)
				want := 200
				if model[n] == nil {
					want = 404
				} else if !holds {
					want = 412
				}
				next := &modelBlob{owner: "claim"}
				if model[n] != nil {
					next.content = model[n].content
				}
				wrote(n, b.do("PUT", c+"/"+n+"?comp=metadata", "", append(headers, "x-ms-meta-ownerid", "claim")...), want, next)
			},
			"delete": func(rt *rapid.T) {
				n := name()
				want := 202
				if model[n] == nil {
					want = 404
				} else {
					delete(staged, n)
				}
				if a := b.do("DELETE", c+"/"+n, ""); a.status != want {
					rt.Fatalf("%s: %d, want %d", a.what, a.status, want)
				}
				delete(model, n)
			},
			"stage": func(rt *rapid.T) {
				n, body, block := name(), content()+"!", rapid.IntRange(0, 3).Draw(rt, "block")
				b.stage(c+"/"+n, block, body).must(201)
				if staged[n] == nil {
					staged[n] = map[int]string{}
				}
				staged[n][block] = body
			},
			"commit": func(rt *rapid.T) {
				n := name()
				list := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 4).Draw(rt, "list")
				want, body, entries := 201, "", []string{}
				for _, block := range list {
					entries = append(entries, fmt.Sprintf("U%d", block))
					if part, ok := staged[n][block]; ok {
						body += part
					} else {
						want = 400
					}
				}
				wrote(n, b.commit(c+"/"+n, entries), want, &modelBlob{content: body})
				if want == 201 {
					delete(staged, n)
				}
			},
			"copy": func(rt *rapid.T) {
				from, to := name(), name()
				want := 202
				if model[from] == nil {
					want = 404
				}
				a := b.do("PUT", c+"/"+to, "", "x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/"+from)
				next := &modelBlob{}
				if model[from] != nil {
					*next = *model[from]
					delete(staged, to)
				}
				wrote(to, a, want, next)
			},
			"clock": func(rt *rapid.T) {
				b.clock.move(time.Duration(rapid.IntRange(-100, 100).Draw(rt, "ms")) * time.Millisecond)
			},
			"sweep":   func(*rapid.T) { b.tidy() },
			"restart": func(*rapid.T) { b.restart() },
			"": func(rt *rapid.T) {
				var listed []string
				a := b.do("GET", c+"?restype=container&comp=list&include=metadata", "").must(200)
				for piece := range strings.SplitSeq(a.body, "<Name>") {
					if n, _, ok := strings.Cut(piece, "</Name>"); ok {
						listed = append(listed, n)
						if m := model[n]; m == nil || !strings.Contains(piece, "<Etag>"+strings.Trim(m.etag, `"`)+"</Etag>") {
							rt.Fatalf("%s is listed as %s, want %+v", n, piece, m)
						}
					}
				}
				if want := slices.Sorted(maps.Keys(model)); !slices.Equal(listed, want) {
					rt.Fatalf("listed %q, want %q", listed, want)
				}
				for n, m := range model {
					a := b.do("GET", c+"/"+n, "")
					if a.body != m.content || a.get("x-ms-meta-ownerid") != m.owner || a.get("ETag") != m.etag {
						rt.Fatalf("%s has %d bytes, %v, want %d, %+v", n, len(a.body), a.header, len(m.content), m.etag)
					}
				}
			},
		})
		// At the end no file is left that nothing refers to.
		b.do("DELETE", "/con?restype=container", "").must(202)
		b.tidy()
		b.tidy()
		if n, keys := b.files(), b.meta.keys("blob/"); n != 0 || len(keys) != 1 { // the ticks' ceiling
			rt.Fatalf("left over: %d files, %q", n, keys)
		}
	})
}

// TestClaims lets many consumers claim the same partitions at once, as each SDK
// does it. Of those who claim one state of a blob, exactly one wins, also when
// they ask two services over one store: nothing but the store's own compare and
// set may decide.
func TestClaims(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	twin := &bench{t: t, meta: b.meta, dir: t.TempDir(), clock: b.clock}
	twin.Service = twin.newService()
	defer twin.Close()
	const consumers, rounds, partitions = 16, 20, 3
	claim := func(b *bench, path, etag, owner string) *answer {
		if etag == "" {
			return b.put(path, "", "If-None-Match", "*", "x-ms-meta-ownerid", owner)
		}
		return b.do("PUT", path+"?comp=metadata", "", "If-Match", etag, "x-ms-meta-ownerid", owner)
	}
	etags := make([]string, partitions)
	for round := range rounds {
		var wg sync.WaitGroup
		var start sync.WaitGroup
		start.Add(1)
		winners := make([]atomic.Pointer[answer], partitions)
		for consumer := range consumers {
			wg.Go(func() {
				start.Wait()
				for i := range partitions {
					p := (i + consumer) % partitions
					a := claim([]*bench{b, twin}[consumer%2], fmt.Sprintf("%s/ownership/%d", c, p), etags[p], fmt.Sprint(consumer))
					switch {
					case a.status < 300:
						if before := winners[p].Swap(a); before != nil {
							t.Errorf("round %d, partition %d: two winners", round, p)
						}
					case a.code() != string(ConditionNotMet) && a.code() != string(BlobAlreadyExists):
						t.Errorf("a loser got %d %s", a.status, a.code())
					}
				}
			})
		}
		start.Done()
		wg.Wait()
		for p := range partitions {
			won := winners[p].Load()
			if won == nil {
				t.Fatalf("round %d, partition %d: no winner", round, p)
			}
			if head := b.do("HEAD", fmt.Sprintf("%s/ownership/%d", c, p), ""); head.get("ETag") != won.get("ETag") {
				t.Errorf("the winner's ETag is not the blob's")
			}
			etags[p] = won.get("ETag")
		}
	}
}

// TestConcurrentWriters has writers without conditions, as JS checkpoints are,
// appenders, and a reader that must never see a mixture.
func TestConcurrentWriters(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	big := func(i int) string { return strings.Repeat(string(rune('a'+i)), maxInline+1+i) }
	b.put(c+"/x", big(0)).must(201)
	b.do("PUT", c+"/log", "", "x-ms-blob-type", "AppendBlob").must(201)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 15 {
				b.put(c+"/x", big(i)).want(201, "")
				b.put(c+"/meta", "", "x-ms-meta-n", fmt.Sprint(i)).want(201, "")
				b.do("PUT", c+"/meta?comp=metadata", "", "x-ms-meta-n", fmt.Sprint(i)).want(200, "")
				b.do("PUT", c+"/log?comp=appendblock", strings.Repeat("l", 5000)).want(201, "")
			}
		})
		wg.Go(func() {
			for range 15 {
				a := b.do("GET", c+"/x", "").want(200, "")
				if n := int(a.body[0] - 'a'); a.body != big(n) {
					t.Errorf("a mixture of %d bytes", len(a.body))
				}
				if err := b.sweep(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if a := b.do("GET", c+"/log", ""); a.body != strings.Repeat("l", 4*15*5000) {
		t.Errorf("the log has %d bytes", len(a.body))
	}
}
