package blob

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// List Blobs: GET restype=container&comp=list, flat or, with a delimiter, one
// level of a hierarchy. List Containers: GET comp=list at the account. Names are
// in the order of their bytes; a flat page is one snapshot of the store, with
// metadata and ETag of the same state. Source: blob.md 1.2, 2.4, 5.18.

// maxResults is the largest page, and the default.
const maxResults = 5000

// listRequest is what a list asks for.
type listRequest struct {
	prefix, marker, delimiter string
	after                     string // the name after which the page starts
	max                       int
	maxText                   string // maxresults as given, for the echo
	metadata, copies          bool
}

func readListRequest(q query) (l listRequest, err error) {
	l = listRequest{
		prefix: q.get("prefix"), marker: q.get("marker"), delimiter: q.get("delimiter"),
		max: maxResults, maxText: q.get("maxresults"),
	}
	if l.maxText != "" {
		n, err := strconv.Atoi(l.maxText)
		if err != nil {
			return l, newError(codeInvalidQuery, "The value of maxresults is not a number.")
		}
		if n < 1 {
			return l, newError(codeOutOfRangeQuery, "The value of maxresults is not positive.")
		}
		l.max = min(n, maxResults)
	}
	if l.after, err = readMarker(l.marker); err != nil {
		return l, err
	}
	// Includes that we don't know have nothing to show here, so they are passed
	// over: snapshots, deleted, tags, versions, …
	for name := range strings.SplitSeq(q.get("include"), ",") {
		switch strings.TrimSpace(name) {
		case "metadata":
			l.metadata = true
		case "copy":
			l.copies = true
		}
	}
	return l, nil
}

// A marker is the name after which the next page starts, in base64 because a
// name may hold what XML can't. Clients treat it as opaque.
func makeMarker(after string) string { return base64.RawURLEncoding.EncodeToString([]byte(after)) }

func readMarker(marker string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(marker)
	if err != nil {
		return "", newError(codeInvalidQuery, "The value of marker is not one that a list returned.")
	}
	return string(b), nil
}

// listItem is a blob in a page, or a collapsed prefix.
type listItem struct {
	name   string
	blob   *blobRecord // nil for a prefix
	prefix bool
}

// listPage collects a page of a container's blobs, and where the next starts
// ("" if this is the last). Nothing is written to a client while the store's
// snapshot is held.
func (s *Service) listPage(ctx context.Context, containerID string, l listRequest) (items []listItem, next string, err error) {
	base := blobsPrefix(containerID)
	after := l.after
	for {
		skipTo := ""
		for e, err := range s.meta.List(ctx, base+l.prefix, afterKey(base, after)) {
			if err != nil {
				return nil, "", storageError("listing blobs", err)
			}
			name := strings.TrimPrefix(e.Key, base)
			r, err := decodeBlob(e.Value)
			if err != nil {
				return nil, "", storageError("listing blobs", err)
			}
			if !r.live() {
				continue
			}
			if len(items) == l.max {
				return items, after, nil
			}
			if dir, ok := l.collapse(name); ok {
				items = append(items, listItem{name: dir, prefix: true})
				// No name in UTF-8 has this byte: it sorts after all below dir.
				skipTo = dir + "\xff"
				after = skipTo
				break
			}
			r.inline, r.Segments = nil, nil // not to be held for the whole page
			items = append(items, listItem{name: name, blob: r})
			after = name
		}
		if skipTo == "" {
			return items, "", nil
		}
	}
}

// afterKey is the key after which to list; none for the beginning.
func afterKey(base, after string) string {
	if after == "" {
		return ""
	}
	return base + after
}

// collapse returns what of a name a list by hierarchy shows, if not the whole.
func (l listRequest) collapse(name string) (string, bool) {
	if l.delimiter == "" {
		return "", false
	}
	i := strings.Index(name[len(l.prefix):], l.delimiter)
	if i < 0 {
		return "", false
	}
	return name[:len(l.prefix)+i+len(l.delimiter)], true
}

func (s *Service) listBlobs(req *request) error {
	l, err := readListRequest(req.query)
	if err != nil {
		return err
	}
	c, _, err := s.getContainer(req.Context(), req.addr.account, req.addr.container)
	if err != nil {
		return err
	}
	items, next, err := s.listPage(req.Context(), c.ID, l)
	if err != nil {
		return err
	}
	var x xmlWriter
	x.open("EnumerationResults", "ServiceEndpoint", req.endpoint(), "ContainerName", req.addr.container)
	x.echo(l)
	x.nonEmpty("Delimiter", l.delimiter)
	x.open("Blobs")
	encode := !req.versionBefore("2021-02-12")
	for _, item := range items {
		if item.prefix {
			x.open("BlobPrefix")
			x.name(item.name, encode)
			x.close("BlobPrefix")
			continue
		}
		x.open("Blob")
		x.name(item.name, encode)
		x.blobProperties(req, item.blob, l.copies)
		if l.metadata {
			x.metadata(item.blob.Metadata)
		}
		x.close("Blob")
	}
	x.close("Blobs")
	x.nextMarker(next)
	x.close("EnumerationResults")
	req.writeXML(http.StatusOK, &x)
	return nil
}

func (x *xmlWriter) echo(l listRequest) {
	x.element("Prefix", l.prefix)
	x.nonEmpty("Marker", l.marker)
	x.nonEmpty("MaxResults", l.maxText)
}

func (x *xmlWriter) nextMarker(next string) {
	if next != "" {
		next = makeMarker(next)
	}
	x.element("NextMarker", next)
}

// name writes a name; one that XML can't hold is percent-encoded, for clients
// new enough to know.
func (x *xmlWriter) name(name string, encode bool) {
	if encode && !xmlLegal(name) {
		x.element("Name", url.PathEscape(name), "Encoded", "true")
		return
	}
	x.element("Name", name)
}

func (x *xmlWriter) blobProperties(req *request, r *blobRecord, copies bool) {
	x.open("Properties")
	x.element("Creation-Time", httpTime(r.Created))
	x.element("Last-Modified", httpTime(r.Modified))
	x.element("Etag", etagText(r.ETag)) // unquoted here
	x.element("Content-Length", strconv.FormatInt(r.Size, 10))
	x.element("Content-Type", r.contentType())
	x.element("Content-Encoding", r.ContentEncoding)
	x.element("Content-Language", r.ContentLanguage)
	x.element("Content-CRC64", "")
	md5 := ""
	if len(r.MD5) > 0 {
		md5 = md5Text(r.MD5)
	}
	x.element("Content-MD5", md5)
	x.element("Cache-Control", r.CacheControl)
	x.element("Content-Disposition", r.Disposition)
	x.element("BlobType", r.Type)
	if r.Type == blockBlob {
		x.element("AccessTier", "Hot")
		x.element("AccessTierInferred", "true")
	}
	x.lease(req, r.Lease)
	if c := r.Copy; c != nil && copies {
		x.element("CopyId", c.ID)
		x.element("CopySource", c.Source)
		x.element("CopyStatus", "success")
		size := strconv.FormatInt(r.Size, 10)
		x.element("CopyProgress", size+"/"+size)
		x.element("CopyCompletionTime", httpTime(c.At))
	}
	x.element("ServerEncrypted", "true")
	x.close("Properties")
}

func (x *xmlWriter) lease(req *request, l *lease) {
	state, status := l.describe(req.now)
	x.element("LeaseStatus", status)
	x.element("LeaseState", state)
	if state == string(leaseLeased) {
		x.element("LeaseDuration", l.kind())
	}
}

// metadata is always an element when asked for; an empty value is an empty one.
func (x *xmlWriter) metadata(m []pair) {
	x.open("Metadata")
	for _, p := range m {
		x.element(p[0], p[1])
	}
	x.close("Metadata")
}

// endpoint is the account's URL, as the client addressed it.
func (req *request) endpoint() string {
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	e := scheme + "://" + req.Host + "/"
	if !req.addr.hostStyle {
		e += req.addr.account
		if req.addr.secondary {
			e += secondarySuffix
		}
	}
	return e
}

func (s *Service) listContainers(req *request) error {
	l, err := readListRequest(req.query)
	if err != nil {
		return err
	}
	base := containerPrefix(req.addr.account)
	var x xmlWriter
	x.open("EnumerationResults", "ServiceEndpoint", req.endpoint())
	x.echo(l)
	x.open("Containers")
	n, last, next := 0, "", ""
	for e, err := range s.meta.List(req.Context(), base+l.prefix, afterKey(base, l.after)) {
		if err != nil {
			return storageError("listing containers", err)
		}
		if n == l.max {
			next = last
			break
		}
		var c containerRecord
		if err := decodeJSON(e.Value, &c); err != nil {
			return storageError("listing containers", err)
		}
		n, last = n+1, strings.TrimPrefix(e.Key, base)
		x.open("Container")
		x.element("Name", last)
		x.open("Properties")
		x.element("Last-Modified", httpTime(c.Modified))
		x.element("Etag", etagText(c.ETag))
		x.lease(req, c.Lease)
		x.element("DefaultEncryptionScope", "$account-encryption-key")
		x.element("DenyEncryptionScopeOverride", "false")
		x.element("HasImmutabilityPolicy", "false")
		x.element("HasLegalHold", "false")
		x.close("Properties")
		if l.metadata {
			x.metadata(c.Metadata)
		}
		x.close("Container")
	}
	x.close("Containers")
	x.nextMarker(next)
	x.close("EnumerationResults")
	req.writeXML(http.StatusOK, &x)
	return nil
}
