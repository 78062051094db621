package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/auth"
)

// Client talks to a Server. It may be used by many goroutines. Every method's
// error is an *Error when the broker answered with one.
type Client struct {
	base *url.URL
	cs   auth.ConnectionString
	http *http.Client
}

// NewClient returns a client for the broker whose HTTP door is at address, such
// as http://localhost:5300. The connection string's host names the namespace,
// and its rule needs Listen to read and Manage to change. A nil hc means one
// that gives up after 30 s.
func NewClient(address string, cs auth.ConnectionString, hc *http.Client) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a broker's HTTP door; one looks like http://localhost:5300", address)
	}
	if hc == nil {
		hc = &http.Client{Timeout: 30 * time.Second}
	}
	return &Client{base: base, cs: cs, http: hc}, nil
}

// tokenLife is how long a token holds that is made for one request.
const tokenLife = 5 * time.Minute

// authorization signs for the event hub that the connection string is limited
// to, or else for the namespace.
func (c *Client) authorization() string {
	if c.cs.Signature != "" {
		return c.cs.Signature
	}
	return auth.SignSAS("sb://"+c.cs.Host+"/"+c.cs.EntityPath, c.cs.KeyName, c.cs.Key, time.Now().Add(tokenLife))
}

// do sends in, if not nil, and decodes the answer into out, if not nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.base.String(), "/")+Root+path, body)
	if err != nil {
		return err
	}
	req.Host = c.cs.Address()
	req.Header.Set("Authorization", c.authorization())
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the broker can't be reached: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read the broker's answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		p := problem{}
		if json.Unmarshal(b, &p) != nil || p.Error == nil {
			return fmt.Errorf("%s is not a Millrace broker's HTTP door: it answered %s", c.base, resp.Status)
		}
		p.Error.Status = resp.StatusCode
		return p.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s is not a Millrace broker's HTTP door: %w", c.base, err)
	}
	return nil
}

// ask does a request and returns the decoded answer.
func ask[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	err := c.do(ctx, method, path, in, &out)
	return out, err
}

func namespacePath(name string) string { return "namespaces/" + url.PathEscape(name) }

// Namespaces lists the broker's namespaces, by name.
func (c *Client) Namespaces(ctx context.Context) ([]Namespace, error) {
	return ask[[]Namespace](ctx, c, http.MethodGet, "namespaces", nil)
}

// Namespace describes a namespace.
func (c *Client) Namespace(ctx context.Context, name string) (Namespace, error) {
	return ask[Namespace](ctx, c, http.MethodGet, namespacePath(name), nil)
}

// Plan tells which tier and how many units a namespace would have needed since a
// time, and where it would have been throttled at a capacity; 0 is its own.
func (c *Client) Plan(ctx context.Context, name string, since time.Time, capacity int) (Plan, error) {
	q := url.Values{"since": {since.UTC().Format(time.RFC3339)}}
	if capacity > 0 {
		q.Set("capacity", strconv.Itoa(capacity))
	}
	return ask[Plan](ctx, c, http.MethodGet, namespacePath(name)+"/plan?"+q.Encode(), nil)
}

// CreateNamespace makes a namespace.
func (c *Client) CreateNamespace(ctx context.Context, want NewNamespace) (Namespace, error) {
	return ask[Namespace](ctx, c, http.MethodPost, "namespaces", want)
}

// UpdateNamespace changes a namespace.
func (c *Client) UpdateNamespace(ctx context.Context, name string, change NamespaceChange) (Namespace, error) {
	return ask[Namespace](ctx, c, http.MethodPatch, namespacePath(name), change)
}

// DeleteNamespace removes a namespace with all its event hubs.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, namespacePath(name), nil, nil)
}

// Inject has a fault happen, and returns to how many connections, receivers or
// event hubs.
func (c *Client) Inject(ctx context.Context, f Fault) (int, error) {
	done, err := ask[FaultDone](ctx, c, http.MethodPost, "faults", f)
	return done.Affected, err
}

func hubPath(hub string) string { return "hubs/" + url.PathEscape(hub) }

// Status returns what the broker says of itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "status", nil)
}

// Hubs lists the event hubs of the namespace, by name.
func (c *Client) Hubs(ctx context.Context) ([]Hub, error) {
	return ask[[]Hub](ctx, c, http.MethodGet, "hubs", nil)
}

// Hub describes an event hub.
func (c *Client) Hub(ctx context.Context, name string) (Hub, error) {
	return ask[Hub](ctx, c, http.MethodGet, hubPath(name), nil)
}

// CreateHub makes an event hub.
func (c *Client) CreateHub(ctx context.Context, want NewHub) (Hub, error) {
	return ask[Hub](ctx, c, http.MethodPost, "hubs", want)
}

// UpdateHub changes an event hub.
func (c *Client) UpdateHub(ctx context.Context, name string, change HubChange) (Hub, error) {
	return ask[Hub](ctx, c, http.MethodPatch, hubPath(name), change)
}

// DeleteHub removes an event hub with all its events.
func (c *Client) DeleteHub(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, hubPath(name), nil, nil)
}

// Partitions describes the partitions of an event hub, in their order.
func (c *Client) Partitions(ctx context.Context, hub string) ([]Partition, error) {
	return ask[[]Partition](ctx, c, http.MethodGet, hubPath(hub)+"/partitions", nil)
}

// Receivers lists who reads an event hub, by group and partition.
func (c *Client) Receivers(ctx context.Context, hub string) ([]Receiver, error) {
	return ask[[]Receiver](ctx, c, http.MethodGet, hubPath(hub)+"/receivers", nil)
}

func revokedPath(hub, publisher string) string {
	return hubPath(hub) + "/revokedpublishers/" + url.PathEscape(publisher)
}

// RevokedPublishers lists the publishers of an event hub that may not send.
func (c *Client) RevokedPublishers(ctx context.Context, hub string) ([]string, error) {
	return ask[[]string](ctx, c, http.MethodGet, hubPath(hub)+"/revokedpublishers", nil)
}

// RevokePublisher keeps a publisher from sending to an event hub.
func (c *Client) RevokePublisher(ctx context.Context, hub, publisher string) error {
	return c.do(ctx, http.MethodPut, revokedPath(hub, publisher), nil, nil)
}

// RestorePublisher lets a revoked publisher send again.
func (c *Client) RestorePublisher(ctx context.Context, hub, publisher string) error {
	return c.do(ctx, http.MethodDelete, revokedPath(hub, publisher), nil, nil)
}

// rulesPath is that of the rules of an event hub; of the namespace, if hub is "".
func rulesPath(hub, rest string) string {
	if hub == "" {
		return "rules" + rest
	}
	return hubPath(hub) + "/rules" + rest
}

// Rules lists the authorization rules, with their keys, of an event hub, or of
// the namespace if hub is "".
func (c *Client) Rules(ctx context.Context, hub string) ([]Rule, error) {
	return ask[[]Rule](ctx, c, http.MethodGet, rulesPath(hub, ""), nil)
}

// Rule returns an authorization rule with its keys.
func (c *Client) Rule(ctx context.Context, hub, name string) (Rule, error) {
	return ask[Rule](ctx, c, http.MethodGet, rulesPath(hub, "/"+url.PathEscape(name)), nil)
}

// PutRule makes or changes an authorization rule.
func (c *Client) PutRule(ctx context.Context, hub string, want Rule) (Rule, error) {
	return ask[Rule](ctx, c, http.MethodPut, rulesPath(hub, "/"+url.PathEscape(want.Name)), want)
}

// DeleteRule removes an authorization rule.
func (c *Client) DeleteRule(ctx context.Context, hub, name string) error {
	return c.do(ctx, http.MethodDelete, rulesPath(hub, "/"+url.PathEscape(name)), nil, nil)
}

// RegenerateKey replaces a key of an authorization rule.
func (c *Client) RegenerateKey(ctx context.Context, hub, name string, change KeyChange) (Rule, error) {
	return ask[Rule](ctx, c, http.MethodPost, rulesPath(hub, "/"+url.PathEscape(name)+"/regenerate"), change)
}

// ApplicationGroups lists the application groups of the namespace.
func (c *Client) ApplicationGroups(ctx context.Context) ([]ApplicationGroup, error) {
	return ask[[]ApplicationGroup](ctx, c, http.MethodGet, "applicationgroups", nil)
}

// PutApplicationGroup makes an application group, or replaces one.
func (c *Client) PutApplicationGroup(ctx context.Context, want ApplicationGroup) (ApplicationGroup, error) {
	return ask[ApplicationGroup](ctx, c, http.MethodPut, "applicationgroups/"+url.PathEscape(want.Name), want)
}

// DeleteApplicationGroup removes an application group.
func (c *Client) DeleteApplicationGroup(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "applicationgroups/"+url.PathEscape(name), nil, nil)
}

// Groups lists the consumer groups of an event hub, $Default first.
func (c *Client) Groups(ctx context.Context, hub string) ([]Group, error) {
	return ask[[]Group](ctx, c, http.MethodGet, hubPath(hub)+"/groups", nil)
}

// CreateGroup makes a consumer group.
func (c *Client) CreateGroup(ctx context.Context, hub, name string) (Group, error) {
	return ask[Group](ctx, c, http.MethodPost, hubPath(hub)+"/groups", NewGroup{Name: name})
}

// DeleteGroup removes a consumer group.
func (c *Client) DeleteGroup(ctx context.Context, hub, name string) error {
	return c.do(ctx, http.MethodDelete, hubPath(hub)+"/groups/"+url.PathEscape(name), nil, nil)
}
