// Package s3 puts captured files into S3, and into what speaks its protocol.
//
// A file is there whole or not at all, and nothing is ever replaced: it is one
// PutObject, or a multipart upload, with If-None-Match: * on the request that makes
// the object (blob.md, section 4.4). S3 itself knows that condition since 2024. A
// store that does not, and says so with 501 NotImplemented, can be used with
// Options.CheckThenPut. There are stores that take the condition and don't heed it:
// those must be used so too, and nothing here finds them out. With CheckThenPut a
// file is looked for before it is put, which holds for as long as nobody else puts
// files of the same names.
//
// A multipart upload that fails is aborted. One whose broker was killed, or whose begin
// or end was cut off, stays, unseen and paid for, until the bucket's rule for
// incomplete multipart uploads takes it away; it should have one.
//
// Content goes from the file on disk to the connection: a Put keeps nothing of it in
// memory.
//
// The key must allow s3:PutObject, s3:GetObject, s3:AbortMultipartUpload and
// s3:ListBucket; without the last, S3 answers 403 for what is not there. Roles of
// machines and other credentials that are fetched are not supported yet.
//
// The package knows files and names, and nothing of events or of what the files
// hold.
package s3

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Options say where the files go. AccessKey and SecretKey are needed.
type Options struct {
	// Endpoint is the store's URL, as https://s3.eu-central-1.amazonaws.com or
	// http://127.0.0.1:9000; without a scheme it is https. Default: S3's of Region.
	Endpoint string
	// Region is where the buckets are. "" asks the store.
	Region string
	// AccessKey and SecretKey sign the requests, with SessionToken if they are
	// temporary.
	AccessKey, SecretKey, SessionToken string

	// Bucket is where files go whose hub's settings name none.
	Bucket string
	// CreateBucket makes buckets that are missing when a file is put.
	CreateBucket bool
	// PathStyle has the bucket's name in the path always. Without, it is in the host's
	// name at S3 itself, and in the path elsewhere.
	PathStyle bool
	// CheckThenPut looks for a file and then puts it without a condition, for stores
	// that know no If-None-Match. There must be one writer for each name.
	CheckThenPut bool

	// PartSize is the size of the parts of a large file, in bytes, and of the largest
	// file that is put in one piece. Default 16 MiB; 5 MiB to 5 GiB.
	PartSize int64
	// Timeout is how long one request may take, with its few retries; for Open, until
	// the answer begins. Default two minutes.
	Timeout time.Duration
	// Transport makes the requests. Default: as http.DefaultTransport.
	Transport http.RoundTripper
}

// Limits of S3.
const (
	minPartSize = 5 << 20
	maxPartSize = 5 << 30
	maxParts    = 10_000
)

// Storage is a [capture.Destination]: a store with its buckets. Make it with New. It
// owns no goroutines, and there is nothing to close.
type Storage struct {
	o        Options
	client   minio.Core
	secrets  *strings.Replacer // hides them in what a store says
	pageSize int               // of lists; 0 is the store's
}

// New returns the destination. It asks the store nothing; the error says which of the
// options is wrong.
func New(o Options) (*Storage, error) {
	o.PartSize = cmp.Or(o.PartSize, 16<<20)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Minute)
	if o.PartSize < minPartSize || o.PartSize > maxPartSize || o.Timeout < 0 {
		return nil, errors.New("s3: PartSize is 5 MiB to 5 GiB, and Timeout more than nothing")
	}
	if o.AccessKey == "" || o.SecretKey == "" {
		return nil, errors.New("s3: an access key and its secret key are needed")
	}
	if o.Endpoint == "" {
		o.Endpoint = "https://s3.amazonaws.com"
		if o.Region != "" {
			o.Endpoint = "https://s3." + o.Region + ".amazonaws.com"
		}
	}
	if !strings.Contains(o.Endpoint, "://") {
		o.Endpoint = "https://" + o.Endpoint
	}
	at, err := url.Parse(o.Endpoint)
	if err == nil && (at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil || strings.Trim(at.Path, "/") != "" || at.RawQuery != "") {
		err = errors.New("it is not a host, with http or https before it")
	}
	if err != nil {
		return nil, fmt.Errorf("s3: the store's endpoint: %w", withoutURL(err))
	}
	if o.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = o.Timeout
		t.DisableCompression = true // what is stored compressed comes as it is
		o.Transport = t
	}
	mo := &minio.Options{
		Creds:  credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken),
		Secure: at.Scheme == "https", Region: o.Region, Transport: o.Transport,
		MaxRetries: 3, // few: whoever captures begins again by itself
	}
	if o.PathStyle {
		mo.BucketLookup = minio.BucketLookupPath
	}
	client, err := minio.New(at.Host, mo)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", withoutURL(err))
	}
	hide := []string{o.AccessKey, "***", o.SecretKey, "***"}
	if o.SessionToken != "" {
		hide = append(hide, o.SessionToken, "***")
	}
	return &Storage{o: o, client: minio.Core{Client: client}, secrets: strings.NewReplacer(hide...)}, nil
}

// bucket is the name of a bucket; "" is the default one.
func (s *Storage) bucket(name string) (string, error) {
	if name = cmp.Or(name, s.o.Bucket); name == "" {
		return "", errors.New("s3: neither the event hub's settings nor the destination's name a bucket")
	}
	return name, nil
}

// URL implements capture.Destination: the object's HTTP address.
func (s *Storage) URL(container, name string) string {
	u := s.client.EndpointURL()
	bucket := cmp.Or(container, s.o.Bucket)
	var b strings.Builder
	b.WriteString(u.Scheme + "://")
	if !s.o.PathStyle && s3utils.IsVirtualHostSupported(*u, bucket) {
		b.WriteString(bucket + "." + u.Host)
	} else {
		b.WriteString(u.Host + "/" + url.PathEscape(bucket))
	}
	for segment := range strings.SplitSeq(name, "/") {
		b.WriteString("/" + url.PathEscape(segment))
	}
	return b.String()
}
