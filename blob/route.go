package blob

import "net/http"

// operation is one of the REST interface's.
type operation struct {
	name string
	run  func(*Service, *request) error
	// resource is the type in a shared access signature's srt that covers it:
	// s service, c container, o object.
	resource byte
	// permissions are the letters of sp, any of which suffices.
	permissions string
	write       bool // refused on the secondary
	list        bool // the one operation on containers that a service SAS covers
}

const anyPermission = "rwdlacuptfxmeoi"

// The operations, as blob.md 2.5 lists them.
var (
	opListContainers    = operation{name: "ListContainers", run: (*Service).listContainers, resource: 's', permissions: "l"}
	opGetServiceProps   = operation{name: "GetBlobServiceProperties", run: (*Service).getServiceProperties, resource: 's', permissions: "r"}
	opSetServiceProps   = operation{name: "SetBlobServiceProperties", run: (*Service).setServiceProperties, resource: 's', permissions: "w", write: true}
	opServiceStats      = operation{name: "GetBlobServiceStats", run: (*Service).getServiceStats, resource: 's', permissions: "r"}
	opCreateContainer   = operation{name: "CreateContainer", run: (*Service).createContainer, resource: 'c', permissions: "cw", write: true}
	opDeleteContainer   = operation{name: "DeleteContainer", run: (*Service).deleteContainer, resource: 'c', permissions: "d", write: true}
	opGetContainer      = operation{name: "GetContainerProperties", run: (*Service).getContainerProperties, resource: 'c', permissions: "r"}
	opSetContainerMeta  = operation{name: "SetContainerMetadata", run: (*Service).setContainerMetadata, resource: 'c', permissions: "w", write: true}
	opGetContainerACL   = operation{name: "GetContainerACL", run: (*Service).getContainerACL, resource: 'c'}
	opSetContainerACL   = operation{name: "SetContainerACL", run: (*Service).setContainerACL, resource: 'c', write: true}
	opLeaseContainer    = operation{name: "LeaseContainer", run: (*Service).leaseContainer, resource: 'c', permissions: "wd", write: true}
	opListBlobs         = operation{name: "ListBlobs", run: (*Service).listBlobs, resource: 'c', permissions: "l", list: true}
	opPutBlob           = operation{name: "PutBlob", run: (*Service).putBlob, resource: 'o', permissions: "cw", write: true}
	opCopyBlob          = operation{name: "CopyBlob", run: (*Service).copyBlob, resource: 'o', permissions: "cw", write: true}
	opAbortCopy         = operation{name: "AbortCopyBlob", run: (*Service).abortCopy, resource: 'o', permissions: "w", write: true}
	opGetBlob           = operation{name: "GetBlob", run: (*Service).getBlobContent, resource: 'o', permissions: "r"}
	opGetBlobProps      = operation{name: "GetBlobProperties", run: (*Service).getBlobProperties, resource: 'o', permissions: "r"}
	opGetBlobMeta       = operation{name: "GetBlobMetadata", run: (*Service).getBlobMetadata, resource: 'o', permissions: "r"}
	opSetBlobProps      = operation{name: "SetBlobProperties", run: (*Service).setBlobProperties, resource: 'o', permissions: "w", write: true}
	opSetBlobMeta       = operation{name: "SetBlobMetadata", run: (*Service).setBlobMetadata, resource: 'o', permissions: "w", write: true}
	opDeleteBlob        = operation{name: "DeleteBlob", run: (*Service).deleteBlob, resource: 'o', permissions: "d", write: true}
	opLeaseBlob         = operation{name: "LeaseBlob", run: (*Service).leaseBlob, resource: 'o', permissions: "wd", write: true}
	opPutBlock          = operation{name: "PutBlock", run: (*Service).putBlock, resource: 'o', permissions: "w", write: true}
	opPutBlockList      = operation{name: "PutBlockList", run: (*Service).putBlockList, resource: 'o', permissions: "w", write: true}
	opGetBlockList      = operation{name: "GetBlockList", run: (*Service).getBlockList, resource: 'o', permissions: "r"}
	opAppendBlock       = operation{name: "AppendBlock", run: (*Service).appendBlock, resource: 'o', permissions: "aw", write: true}
	opAccountInfo       = operation{name: "GetAccountInformation", run: (*Service).getAccountInfo, resource: 's', permissions: anyPermission}
	opContainerAccount  = operation{name: "GetAccountInformation", run: (*Service).getAccountInfo, resource: 'c', permissions: anyPermission, list: true}
	opBlobAccount       = operation{name: "GetAccountInformation", run: (*Service).getAccountInfo, resource: 'o', permissions: anyPermission}
	opGetContainerMeta  = opGetContainer // the same headers, and more
	containerOperations = map[string]*operation{
		"PUT ": &opCreateContainer, "DELETE ": &opDeleteContainer, "GET ": &opGetContainer, "HEAD ": &opGetContainer,
		"GET list": &opListBlobs, "GET metadata": &opGetContainerMeta, "HEAD metadata": &opGetContainerMeta,
		"PUT metadata": &opSetContainerMeta, "GET acl": &opGetContainerACL, "HEAD acl": &opGetContainerACL,
		"PUT acl": &opSetContainerACL, "PUT lease": &opLeaseContainer,
	}
	blobOperations = map[string]*operation{
		"GET ": &opGetBlob, "HEAD ": &opGetBlobProps, "PUT ": &opPutBlob, "DELETE ": &opDeleteBlob,
		"GET metadata": &opGetBlobMeta, "HEAD metadata": &opGetBlobMeta, "PUT metadata": &opSetBlobMeta,
		"PUT properties": &opSetBlobProps, "PUT block": &opPutBlock, "PUT blocklist": &opPutBlockList,
		"GET blocklist": &opGetBlockList, "PUT appendblock": &opAppendBlock, "PUT lease": &opLeaseBlob,
		"PUT copy": &opAbortCopy,
	}
)

// route finds the operation that a request asks for. What we know and don't
// offer, and what we don't know, are both answered 501: a client takes that for
// final, and would retry another 500 for long (blob.md 1.3).
func route(req *request) (*operation, error) {
	comp, restype := req.query.get("comp"), req.query.get("restype")
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPost:
	default:
		return nil, newError(codeUnsupportedVerb, "The resource doesn't support the HTTP verb %.20q.", req.Method)
	}
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	if restype == "account" && comp == "properties" && reads {
		switch {
		case req.addr.blob != "":
			return &opBlobAccount, nil
		case req.addr.container != "":
			return &opContainerAccount, nil
		}
		return &opAccountInfo, nil
	}
	var op *operation
	switch {
	case req.addr.blob != "":
		op = blobOperations[req.Method+" "+comp]
		if op == &opPutBlob && req.Header.Get("x-ms-copy-source") != "" {
			op = &opCopyBlob
		}
	case req.addr.container != "":
		if restype == "container" {
			op = containerOperations[req.Method+" "+comp]
		}
	default:
		op = routeService(req.Method, restype, comp)
	}
	if op == nil {
		return nil, errNotImplemented("the operation " + req.Method + " with restype=" + clip(restype) + " and comp=" + clip(comp))
	}
	return op, nil
}

func routeService(method, restype, comp string) *operation {
	switch {
	case method == http.MethodGet && comp == "list":
		return &opListContainers
	case restype != "service":
		return nil
	case method == http.MethodGet && comp == "properties":
		return &opGetServiceProps
	case method == http.MethodPut && comp == "properties":
		return &opSetServiceProps
	case method == http.MethodGet && comp == "stats":
		return &opServiceStats
	}
	return nil
}

// clip keeps what a client sent from filling our answer.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
