// Package azure puts captured files into Azure Blob Storage, and into what speaks
// its protocol: Azurite, and the broker's own Blob endpoint.
//
// A file is there whole or not at all, and nothing is ever replaced: it is one Put
// Blob, or staged blocks and one Put Block List, with If-None-Match: * (blob.md,
// section 4.4). A block's id is made of what it holds, so that two who put different
// files under one name never mix them, and who begins again stages the same blocks.
// Blocks of a file that was given up are kept by the service for seven days, unseen,
// and then dropped.
//
// Content goes from the file on disk to the connection: a Put keeps nothing of it in
// memory.
//
// Requests are signed with an account's key, or carry a shared access signature.
// Token credentials (managed identities, Entra) are not supported yet.
//
// The package knows files and names, and nothing of events or of what the files
// hold.
package azure

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

// Options say where the files go. Either ConnectionString is set, or ServiceURL,
// Account, Key and SAS, as far as they are needed.
type Options struct {
	// ConnectionString is a storage connection string with an account's key or a
	// shared access signature. UseDevelopmentStorage=true, alone, is Azurite on its
	// usual port.
	ConnectionString string

	// ServiceURL is the Blob endpoint, as https://ACCOUNT.blob.core.windows.net; it
	// may have a shared access signature as its query. Default: Azure's of Account.
	ServiceURL string
	// Account and Key (base64) sign the requests.
	Account, Key string
	// SAS is a shared access signature, in place of a key: a query, with or without
	// its question mark. It must allow to write and read blobs; to list them, for
	// List; and to create containers, for CreateContainer.
	SAS string

	// Container is where files go whose hub's settings name none.
	Container string
	// CreateContainer makes containers that are missing when a file is put.
	CreateContainer bool

	// BlockSize is the size of blocks, in bytes, and of the largest file that is put
	// in one piece. Default 4 MiB; at most 4,000 MiB.
	BlockSize int64
	// Timeout is how long one request may take, with its few retries; for Open, until
	// the answer begins. Default two minutes.
	Timeout time.Duration
	// Transport makes the requests, for those that don't go through a network, or
	// through one of their own. Default: as http.DefaultTransport.
	Transport http.RoundTripper
}

// Limits of the service.
const (
	maxBlockSize = 4000 << 20
	maxBlocks    = 50_000
)

// Storage is a [capture.Destination]: a storage account, or something like it. Make
// it with New. It owns no goroutines, and there is nothing to close.
type Storage struct {
	o        Options
	service  *service.Client
	url      string // without a query, ends in a slash
	pageSize *int32 // of lists; nil is the service's
}

// azurite is what UseDevelopmentStorage=true stands for. The key is public.
const azurite = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;" +
	"AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;" +
	"BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"

// New returns the destination. It asks the service nothing; the error says which of
// the options is wrong.
func New(o Options) (*Storage, error) {
	o.BlockSize = cmp.Or(o.BlockSize, 4<<20)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Minute)
	if o.BlockSize < 0 || o.BlockSize > maxBlockSize || o.Timeout < 0 {
		return nil, errors.New("azure: BlockSize is 1 byte to 4,000 MiB, and Timeout more than nothing")
	}
	if o.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = o.Timeout
		o.Transport = t
	}
	client, err := connect(&o, &service.ClientOptions{ClientOptions: azcore.ClientOptions{
		// Few and short: whoever captures begins again by itself.
		Retry: policy.RetryOptions{MaxRetries: 2, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 2 * time.Second},
		Transport: &http.Client{
			Transport:     o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}})
	if err != nil {
		return nil, fmt.Errorf("azure: %w", withoutURL(err))
	}
	base, err := url.Parse(client.URL())
	if err == nil && (base.Scheme != "http" && base.Scheme != "https" || base.Host == "") {
		err = errors.New("the service's URL is not one of HTTP")
	}
	if err != nil {
		return nil, fmt.Errorf("azure: %w", withoutURL(err))
	}
	plain := url.URL{Scheme: base.Scheme, Host: base.Host, Path: strings.TrimSuffix(base.Path, "/") + "/"}
	return &Storage{o: o, service: client, url: plain.String()}, nil
}

// connect makes the client from what is given.
func connect(o *Options, co *service.ClientOptions) (*service.Client, error) {
	if o.ConnectionString != "" {
		if o.ServiceURL != "" || o.Account != "" || o.Key != "" || o.SAS != "" {
			return nil, errors.New("there are a connection string and another way to the same: one will do")
		}
		text := o.ConnectionString
		if strings.EqualFold(strings.TrimRight(text, ";"), "UseDevelopmentStorage=true") {
			text = azurite
		}
		return service.NewClientFromConnectionString(text, co)
	}
	at := o.ServiceURL
	if at == "" {
		if o.Account == "" {
			return nil, errors.New("a connection string, a service's URL, or an account is needed")
		}
		at = "https://" + o.Account + ".blob.core.windows.net"
	}
	path, query, _ := strings.Cut(at, "?")
	path = strings.TrimSuffix(path, "/") + "/"
	sas := cmp.Or(query, strings.TrimPrefix(o.SAS, "?"))
	switch {
	case sas != "" && (o.Key != "" || query != "" && o.SAS != ""):
		return nil, errors.New("there are two of a key, a shared access signature, and one in the service's URL: one will do")
	case sas != "":
		return service.NewClientWithNoCredential(path+"?"+sas, co)
	case o.Account == "" || o.Key == "":
		return nil, errors.New("an account with its key, or a shared access signature, is needed")
	}
	credential, err := service.NewSharedKeyCredential(o.Account, o.Key)
	if err != nil {
		return nil, fmt.Errorf("the account's key: %w", err)
	}
	return service.NewClientWithSharedKeyCredential(path, credential, co)
}

// container is the client of a container; "" is the default one.
func (s *Storage) container(name string) (*container.Client, error) {
	if name = cmp.Or(name, s.o.Container); name == "" {
		return nil, errors.New("azure: neither the event hub's settings nor the destination's name a container")
	}
	return s.service.NewContainerClient(url.PathEscape(name)), nil
}

// URL implements capture.Destination. It holds no signature.
func (s *Storage) URL(container, name string) string {
	var b strings.Builder
	b.WriteString(s.url + url.PathEscape(cmp.Or(container, s.o.Container)))
	for segment := range strings.SplitSeq(name, "/") {
		b.WriteString("/" + url.PathEscape(segment))
	}
	return b.String()
}
