package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store/segment"
)

// world is an admin server over namespaces on a simulated disk.
type world struct {
	t   *testing.T
	all *hub.Namespaces
	url string
}

var rules = []hub.Rule{
	{Name: "root", Rights: auth.Manage, Primary: "root key"},
	{Name: "reader", Rights: auth.Listen, Primary: "reader key"},
	{Name: "sender", Rights: auth.Send, Primary: "sender key"},
}

func newWorld(t *testing.T) *world {
	ctx := t.Context()
	st, err := segment.Open(ctx, segment.Options{Disk: sim.NewDisk(), KV: segment.NewMemoryKV(), JournalBytes: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	all, err := hub.Open(ctx, hub.Options{Store: st, Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	v, err := auth.NewVerifier(auth.Options{Keys: all})
	if err != nil {
		t.Fatal(err)
	}
	s := admin.NewServer(admin.Options{Namespaces: all, Verifier: v, Status: func(context.Context) admin.Status {
		return admin.Status{Version: "test", Sync: "always", Doors: map[string]string{"amqp": "127.0.0.1:1"}}
	}})
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return &world{t: t, all: all, url: srv.URL}
}

func (w *world) client(rule, key, host, entity string) *admin.Client {
	w.t.Helper()
	c, err := admin.NewClient(w.url, auth.ConnectionString{Host: host, KeyName: rule, Key: key, EntityPath: entity}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) root() *admin.Client { return w.client("root", "root key", "localhost", "") }

// refused checks that err is an answer of that status and kind.
func refused(t *testing.T, err error, status int, kind string) {
	t.Helper()
	var e *admin.Error
	if !errors.As(err, &e) || e.Status != status || e.Kind != kind || e.Message == "" {
		t.Errorf("%v (%+v); want %d %s", err, e, status, kind)
	}
}

func TestHubs(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	c := w.root()
	h, err := c.CreateHub(ctx, admin.NewHub{Name: "Trial", Partitions: 2, Retention: admin.Retention(24 * time.Hour), Groups: []string{"audit"}})
	if err != nil {
		t.Fatal(err)
	}
	want := admin.Hub{Namespace: "localhost", Name: "Trial", Partitions: 2, Status: "Active", Retention: admin.Retention(24 * time.Hour), Groups: []string{"$Default", "audit"}}
	ignore := cmpopts.IgnoreFields(admin.Hub{}, "Created", "Updated")
	if d := cmp.Diff(want, h, ignore); d != "" {
		t.Error(d)
	}
	if _, err := c.CreateHub(ctx, admin.NewHub{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	hubs, err := c.Hubs(ctx)
	if err != nil || len(hubs) != 2 || hubs[1].Name != "other" || hubs[1].Partitions != admin.DefaultPartitions || hubs[1].Retention.String() != "7d" {
		t.Errorf("%+v, %v", hubs, err)
	}
	if h, err = c.UpdateHub(ctx, "trial", admin.HubChange{Retention: admin.Forever}); err != nil || h.Retention != admin.Forever {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err = c.Hub(ctx, "TRIAL"); err != nil || h.Retention != admin.Forever || !h.Updated.After(h.Created.Add(-time.Millisecond)) {
		t.Errorf("%+v, %v", h, err)
	}
	if err := c.DeleteHub(ctx, "trial"); err != nil {
		t.Fatal(err)
	}
	refused(t, c.DeleteHub(ctx, "trial"), 404, "NotFound")
	_, err = c.Hub(ctx, "trial")
	refused(t, err, 404, "NotFound")
	st, err := c.Status(ctx)
	if err != nil || st.Version != "test" || st.Hubs != 1 || st.Partitions != 4 || st.Namespaces != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestRefusals(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	c := w.root()
	if _, err := c.CreateHub(ctx, admin.NewHub{Name: "trial", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 256)
	for _, x := range []struct {
		name   string
		want   admin.NewHub
		status int
		kind   string
	}{
		{"the longest name", admin.NewHub{Name: long}, 0, ""},
		{"a longer name", admin.NewHub{Name: long + "x"}, 400, "InvalidArgument"},
		{"no name", admin.NewHub{}, 400, "InvalidArgument"},
		{"a name with a space", admin.NewHub{Name: "a b"}, 400, "InvalidArgument"},
		{"a name there already, in another case", admin.NewHub{Name: "TRIAL"}, 409, "AlreadyExists"},
		{"the most partitions", admin.NewHub{Name: "many", Partitions: hub.MaxPartitions}, 0, ""},
		{"too many partitions", admin.NewHub{Name: "more", Partitions: hub.MaxPartitions + 1}, 400, "InvalidArgument"},
		{"too few", admin.NewHub{Name: "fewer", Partitions: -1}, 400, "InvalidArgument"},
		{"a group twice", admin.NewHub{Name: "twice", Groups: []string{"a", "A"}}, 400, "InvalidArgument"},
		{"the default group", admin.NewHub{Name: "default", Groups: []string{"$default"}}, 403, "Forbidden"},
	} {
		_, err := c.CreateHub(ctx, x.want)
		switch {
		case x.status == 0 && err != nil:
			t.Errorf("%s: %v", x.name, err)
		case x.status != 0:
			refused(t, err, x.status, x.kind)
		}
	}
	_, err := c.UpdateHub(ctx, "trial", admin.HubChange{})
	refused(t, err, 400, "BadRequest")
	_, err = c.Hub(ctx, strings.Repeat("n", 3000))
	refused(t, err, 404, "NotFound")
	_, err = c.Hub(ctx, "../status")
	refused(t, err, 404, "NotFound")
}

// TestGroupsRace: a group that is deleted as soon as it is there was created.
func TestGroupsRace(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h, err := w.all.Default().CreateEventHub(ctx, "trial", 1, hub.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	var deleting sync.WaitGroup
	defer deleting.Wait()
	done := make(chan struct{})
	defer close(done)
	deleting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				h.DeleteGroup(ctx, "g") // which often is not there
			}
		}
	})
	c := w.root()
	for range 500 {
		if _, err := c.CreateGroup(ctx, "trial", "g"); err != nil {
			refused(t, err, 409, "AlreadyExists")
		}
	}
}

func TestGroups(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	c := w.root()
	if _, err := c.CreateHub(ctx, admin.NewHub{Name: "trial", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	longest := strings.Repeat("g", hub.MaxGroupName)
	if g, err := c.CreateGroup(ctx, "trial", longest); err != nil || g.Name != longest || g.Created.IsZero() {
		t.Fatal(g, err)
	}
	_, err := c.CreateGroup(ctx, "trial", longest+"g")
	refused(t, err, 400, "InvalidArgument")
	_, err = c.CreateGroup(ctx, "trial", strings.ToUpper(longest))
	refused(t, err, 409, "AlreadyExists")
	_, err = c.CreateGroup(ctx, "none", "a")
	refused(t, err, 404, "NotFound")
	gs, err := c.Groups(ctx, "trial")
	if err != nil || len(gs) != 2 || gs[0].Name != "$Default" || gs[1].Name != longest {
		t.Errorf("%+v, %v", gs, err)
	}
	refused(t, c.DeleteGroup(ctx, "trial", "$Default"), 403, "Forbidden")
	if err := c.DeleteGroup(ctx, "trial", longest); err != nil {
		t.Error(err)
	}
	refused(t, c.DeleteGroup(ctx, "trial", longest), 404, "NotFound")
}

func TestPartitionsAndReceivers(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	c := w.root()
	if _, err := c.CreateHub(ctx, admin.NewHub{Name: "trial", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	h, err := w.all.Default().EventHub("trial")
	if err != nil {
		t.Fatal(err)
	}
	b := event.NewBatch(event.EncodingAMQP)
	slab := event.NewSlab(event.Headroom + 8)
	b.AddRecord(slab, event.Headroom+8, 3)
	done := make(chan error, 1)
	h.At(1).Append(b, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.Release()
	ps, err := c.Partitions(ctx, "trial")
	if err != nil || len(ps) != 2 || ps[0].Last != -1 || !ps[0].Empty || ps[0].LastEnqueued != nil {
		t.Errorf("%+v, %v", ps, err)
	} else if p := ps[1]; p.ID != "1" || p.First != 0 || p.Last != 2 || p.Empty || p.LastEnqueued == nil || p.Bytes == 0 {
		t.Errorf("%+v", p)
	}
	g, err := h.Group("$Default")
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Join(h.At(0), hub.ReceiverOptions{Name: "me", Exclusive: true, Epoch: 7, Lost: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Leave()
	rs, err := c.Receivers(ctx, "trial")
	if d := cmp.Diff([]admin.Receiver{{Group: "$Default", Partition: "0", Name: "me", Epoch: new(int64(7))}}, rs); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestRights(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	root := w.root()
	for _, name := range []string{"a", "b"} {
		if _, err := root.CreateHub(ctx, admin.NewHub{Name: name, Partitions: 1}); err != nil {
			t.Fatal(err)
		}
	}
	h, _ := w.all.Default().EventHub("a")
	if err := h.Update(ctx, func(s *hub.Settings) error {
		s.Rules = []hub.Rule{{Name: "own", Rights: auth.Manage, Primary: "own key"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	reader := w.client("reader", "reader key", "localhost", "")
	if _, err := reader.Hubs(ctx); err != nil {
		t.Error(err)
	}
	_, err := reader.CreateHub(ctx, admin.NewHub{Name: "c"})
	refused(t, err, 403, "Unauthorized")
	refused(t, reader.DeleteHub(ctx, "a"), 403, "Unauthorized")
	_, err = w.client("sender", "sender key", "localhost", "").Hubs(ctx)
	refused(t, err, 403, "Unauthorized")
	_, err = w.client("root", "wrong", "localhost", "").Hubs(ctx)
	refused(t, err, 401, "InvalidSignature")
	_, err = w.client("nobody", "wrong", "localhost", "").Hubs(ctx)
	refused(t, err, 401, "UnknownKey")

	own := w.client("own", "own key", "localhost", "a")
	if _, err := own.CreateGroup(ctx, "a", "mine"); err != nil {
		t.Error(err)
	}
	if _, err := own.UpdateHub(ctx, "a", admin.HubChange{Retention: admin.Forever}); err != nil {
		t.Error(err)
	}
	_, err = own.CreateGroup(ctx, "b", "mine")
	refused(t, err, 403, "Unauthorized")
	_, err = own.Hubs(ctx)
	refused(t, err, 403, "Unauthorized")
	refused(t, own.DeleteHub(ctx, "a"), 403, "Unauthorized")
}

func TestNamespaceByHost(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	if _, err := w.all.Create(ctx, "second", hub.NamespaceSettings{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client("root", "root key", "second.servicebus.windows.net", "").CreateHub(ctx, admin.NewHub{Name: "there"}); err != nil {
		t.Fatal(err)
	}
	hubs, err := w.root().Hubs(ctx)
	if err != nil || len(hubs) != 0 {
		t.Errorf("%+v, %v", hubs, err)
	}
}

// TestLocalAuth: keys are refused here, too, but for those of the broker's own
// rules; else nobody could take them again.
func TestLocalAuth(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	c, on, off := w.root(), true, false
	if _, err := c.CreateHub(ctx, admin.NewHub{Name: "trial"}); err != nil {
		t.Fatal(err)
	}
	for _, hub := range []string{"", "trial"} {
		if _, err := c.PutRule(ctx, hub, admin.Rule{Name: "stored", Rights: "Manage", Primary: "s"}); err != nil {
			t.Fatal(err)
		}
	}
	// A rule of a hub is not the broker's, whatever its name.
	if _, err := c.PutRule(ctx, "trial", admin.Rule{Name: "root", Rights: "Manage", Primary: "of the hub"}); err != nil {
		t.Fatal(err)
	}
	if ns, err := c.UpdateNamespace(ctx, "localhost", admin.NamespaceChange{DisableLocalAuth: &on}); err != nil || !ns.DisableLocalAuth {
		t.Fatalf("%+v, %v", ns, err)
	}
	_, err := w.client("stored", "s", "localhost", "").Hubs(ctx)
	refused(t, err, 401, "LocalAuthDisabled")
	_, err = w.client("stored", "s", "localhost", "trial").Hub(ctx, "trial")
	refused(t, err, 401, "LocalAuthDisabled")
	_, err = w.client("root", "of the hub", "localhost", "trial").Hub(ctx, "trial")
	refused(t, err, 401, "LocalAuthDisabled")
	if ns, err := c.Namespace(ctx, "localhost"); err != nil || !ns.DisableLocalAuth {
		t.Errorf("%+v, %v", ns, err)
	}
	if ns, err := c.UpdateNamespace(ctx, "localhost", admin.NamespaceChange{DisableLocalAuth: &off}); err != nil || ns.DisableLocalAuth {
		t.Errorf("%+v, %v", ns, err)
	}
	if _, err := w.client("stored", "s", "localhost", "").Hubs(ctx); err != nil {
		t.Error(err)
	}
}

// TestNamespaces: a key of the default namespace manages all of them, another
// its own alone.
func TestNamespaces(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	c := w.root()
	tier, units, zero := "standard", 3, 0
	ns, err := c.CreateNamespace(ctx, admin.NewNamespace{Name: "Payments", NamespaceChange: admin.NamespaceChange{Tier: &tier, Capacity: &units}})
	if err != nil || ns.Name != "Payments" || ns.Tier != "standard" || ns.Capacity != 3 || ns.Unit != "throughput unit" || ns.Default {
		t.Fatalf("%+v, %v", ns, err)
	}
	_, err = c.CreateNamespace(ctx, admin.NewNamespace{Name: "payments"})
	refused(t, err, 409, "AlreadyExists")
	_, err = c.UpdateNamespace(ctx, "payments", admin.NamespaceChange{})
	refused(t, err, 400, "BadRequest")
	_, err = c.UpdateNamespace(ctx, "payments", admin.NamespaceChange{Capacity: &zero})
	if err != nil { // none asked for
		t.Error(err)
	}
	_, err = c.Namespace(ctx, "nowhere")
	refused(t, err, 404, "NotFound")
	refused(t, c.DeleteNamespace(ctx, "localhost"), 403, "Forbidden")

	own := w.client("root", "root key", "payments.servicebus.windows.net", "")
	if ns, err := own.UpdateNamespace(ctx, "payments", admin.NamespaceChange{Capacity: &units}); err != nil || ns.Capacity != 3 {
		t.Errorf("its own: %+v, %v", ns, err)
	}
	_, err = own.Namespace(ctx, "localhost")
	refused(t, err, 403, "Forbidden")
	_, err = own.Namespaces(ctx)
	refused(t, err, 403, "Forbidden")
	refused(t, own.DeleteNamespace(ctx, "payments"), 403, "Forbidden")
	_, err = w.client("reader", "reader key", "localhost", "").UpdateNamespace(ctx, "payments", admin.NamespaceChange{Capacity: &units})
	refused(t, err, 403, "Unauthorized")

	if all, err := c.Namespaces(ctx); err != nil || len(all) != 2 || all[0].Name != "Payments" || !all[1].Default {
		t.Errorf("%+v, %v", all, err)
	}
	if err := c.DeleteNamespace(ctx, "payments"); err != nil {
		t.Error(err)
	}
	_, err = c.Namespace(ctx, "payments")
	refused(t, err, 404, "NotFound")
}

// raw does a request by hand.
func (w *world) raw(method, path, body string, change func(*http.Request)) (int, http.Header, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.SetBasicAuth("root", "root key")
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b)
}

func TestWire(t *testing.T) {
	w := newWorld(t)
	sas := auth.SignSAS("http://localhost/", "root", "root key", time.Now().Add(time.Minute))
	for _, c := range []struct {
		name, method, path, body string
		change                   func(*http.Request)
		status                   int
		kind                     string
	}{
		{"Basic", "GET", "hubs", "", nil, 200, ""},
		{"a token", "GET", "hubs", "", func(r *http.Request) { r.Header.Set("Authorization", sas) }, 200, ""},
		{"no authorization", "GET", "hubs", "", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "Malformed"},
		{"another scheme", "GET", "hubs", "", func(r *http.Request) { r.Header.Set("Authorization", "Digest x") }, 401, "Malformed"},
		{"an expired token", "GET", "hubs", "", func(r *http.Request) {
			r.Header.Set("Authorization", auth.SignSAS("http://localhost/", "root", "root key", time.Now().Add(-time.Hour)))
		}, 401, "Expired"},
		{"HEAD", "HEAD", "hubs", "", nil, 200, ""},
		{"no such path", "GET", "nothing", "", nil, 404, "NoSuchPath"},
		{"a method that there is not", "PUT", "hubs", "", nil, 405, "MethodNotAllowed"},
		{"no body", "POST", "hubs", "", nil, 400, "BadRequest"},
		{"not JSON", "POST", "hubs", "name: x", nil, 400, "BadRequest"},
		{"an unknown key", "POST", "hubs", `{"name":"x","partition":3}`, nil, 400, "BadRequest"},
		{"two values", "POST", "hubs", `{"name":"x"}{}`, nil, 400, "BadRequest"},
		{"a bad retention", "POST", "hubs", `{"name":"x","retention":"soon"}`, nil, 400, "BadRequest"},
		{"too long", "POST", "hubs", `{"name":"` + strings.Repeat("x", admin.MaxBody) + `"}`, nil, 413, "TooLarge"},
		{"from another site", "POST", "hubs", `{"name":"x"}`, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, "Forbidden"},
		{"well made", "POST", "hubs", `{"name":"x","partitions":3,"retention":"2d"}`, nil, 201, ""},
		{"an escaped slash in a name", "GET", "hubs/a%2Fb", "", nil, 404, "NotFound"},
	} {
		status, h, body := w.raw(c.method, admin.Root+c.path, c.body, c.change)
		if status != c.status {
			t.Errorf("%s: %d %s; want %d", c.name, status, body, c.status)
			continue
		}
		if c.kind == "" {
			continue
		}
		var p struct{ Error admin.Error }
		d := json.NewDecoder(bytes.NewBufferString(body))
		if err := d.Decode(&p); err != nil || p.Error.Kind != c.kind || p.Error.Message == "" {
			t.Errorf("%s: %s; want kind %s", c.name, body, c.kind)
		}
		if c.status == 405 && h.Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: Allow is %q", c.name, h.Get("Allow"))
		}
		if c.status == 401 && h.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", c.name)
		}
	}
}

func TestClientFindsNoBroker(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	cs := auth.ConnectionString{Host: "localhost", KeyName: "root", Key: "k"}
	c, err := admin.NewClient(srv.URL, cs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Hubs(t.Context()); err == nil || !strings.Contains(err.Error(), "not a Millrace broker") {
		t.Error(err)
	}
	for _, bad := range []string{"", "localhost:5300", "ftp://x", "http://"} {
		if _, err := admin.NewClient(bad, cs, nil); err == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
}

// TestEveryKindHasAStatus holds the tables complete.
func TestEveryKindHasAStatus(t *testing.T) {
	var errs []error
	for _, k := range hub.Kinds() {
		errs = append(errs, &hub.Error{Kind: k, Text: "text", RetryAfter: 1500 * time.Millisecond})
	}
	for _, k := range auth.Kinds() {
		errs = append(errs, &auth.Error{Kind: k, Text: "text"})
	}
	known := []int{400, 401, 403, 404, 409, 413, 500, 503}
	for _, err := range errs {
		if status, _ := admin.StatusOf(fmt.Errorf("wrapped: %w", err)); !slices.Contains(known, status) {
			t.Errorf("%#v has the status %d", err, status)
		}
	}
	if _, retry := admin.StatusOf(errs[hub.Busy-1]); retry != "2" {
		t.Errorf("Retry-After is %q", retry)
	}
	if status, _ := admin.StatusOf(errors.New("anything")); status != 500 {
		t.Errorf("an unknown error has the status %d", status)
	}
}
