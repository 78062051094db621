package rest

import (
	"encoding/json"
	"time"

	"github.com/millrace/millrace/hub"
)

// CodeOf lets tests see how an error is answered by the resource manager.
func CodeOf(err error) (status int, code, retryAfter string) {
	a := armAnswerFor(err)
	return a.status, a.code, a.retryAfter
}

// MaxARM is the longest body of a request to the resource manager.
const MaxARM = maxARM

// DecodeARM lets fuzzing read a body as one that asks for a namespace, and for an
// event hub, and see what they would become.
func DecodeARM(body []byte, retention time.Duration) (ns hub.NamespaceSettings, h hub.Settings, errs [2]error) {
	var nb namespaceBody
	if errs[0] = decodeARM(body, &nb); errs[0] == nil {
		if errs[0] = nb.check(); errs[0] == nil {
			errs[0] = nb.change(&ns, true)
		}
	}
	var hb hubBody
	if errs[1] = decodeARM(body, &hb); errs[1] == nil {
		if errs[1] = hb.check(); errs[1] == nil {
			h.Status = hb.status()
			if h.Retention, errs[1] = hb.retention(retention); errs[1] == nil {
				errs[1] = hb.Properties.CaptureDescription.change(&h)
			}
		}
	}
	return ns, h, errs
}

// ShowARM is a hub's retention as the resource manager shows it, in a body that
// asks for it.
func ShowARM(retention time.Duration) []byte {
	hours := whole(retention, time.Hour)
	b, _ := json.Marshal(map[string]any{"properties": armHubProperties{MessageRetentionInDays: whole(retention, day),
		PartitionCount: 1, Status: "Active", RetentionDescription: armRetention{"Delete", &hours}}})
	return b
}

// ShowARMCapture is a hub's capture as the resource manager shows it, in a body that
// asks for it.
func ShowARMCapture(c *hub.Capture) []byte {
	b, _ := json.Marshal(map[string]any{"properties": map[string]any{"captureDescription": describeCapture(c)}})
	return b
}

// ParseARM tells what the steps of a path mean to the resource manager.
func ParseARM(seg []string) (kind, id string, ok bool) {
	p, ok := parseARM(seg)
	return p.kind, p.scope(), ok
}
