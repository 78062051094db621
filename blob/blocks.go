package blob

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace/millrace/store"
)

// Put Block: PUT comp=block&blockid=ID stages content in a file; 201; with
// x-ms-copy-source (Put Block From URL) it is a range of another blob. Put Block
// List: PUT comp=blocklist makes a blob of blocks that are staged or in it
// already; 201. What is staged and not named is dropped. Get Block List: GET
// comp=blocklist&blocklisttype=committed|uncommitted|all; 200.
// Source: blob.md 2.4, 3.1, 5.20.

const (
	maxBlockID  = 64      // bytes, decoded
	maxBlocks   = 50_000  // of one blob
	maxBlockXML = 8 << 20 // bytes of a block list, which 50,000 long ids fill
)

// blockID checks an id and returns its text, which is otherwise left alone: some
// clients encode ids twice.
func blockID(text string) (string, int, error) {
	text = strings.ReplaceAll(text, " ", "+") // a plus sign that was not escaped
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 || len(b) > maxBlockID {
		return "", 0, newError(codeInvalidQuery, "The block id is not base64 of 1 to %d bytes.", maxBlockID)
	}
	return text, len(b), nil
}

func (s *Service) putBlock(req *request) error {
	id, idLen, err := blockID(req.query.get("blockid"))
	if err != nil {
		return err
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	if err := s.checkStage(req, key, idLen); err != nil {
		return err
	}
	p, err := s.receiveBlock(req)
	if err != nil {
		return err
	}
	defer p.close()
	old, _, err := s.getBlob(req.Context(), key)
	if err != nil {
		return err
	}
	var after uint64
	if old != nil {
		after = old.BlocksBefore
	}
	r := stagedRecord{File: p.file, Size: p.size, At: s.now().UnixMilli()}
	if r.Stamp, err = s.tick(req.Context(), after); err != nil {
		return err
	}
	_, err = s.meta.Put(context.WithoutCancel(req.Context()), stagedPrefix(key)+id, encodeJSON(&r), store.AnyVersion)
	p.settle(err)
	if err != nil {
		return storageError("storing a block's record", err)
	}
	if req.Header.Get("Content-MD5") != "" {
		req.set("Content-MD5", md5Text(p.md5[:]))
	}
	req.set("x-ms-content-crc64", crcText(p.crc))
	req.set("x-ms-request-server-encrypted", "true")
	req.w.WriteHeader(http.StatusCreated)
	return nil
}

// receiveBlock stores a block's content, always in a file.
func (s *Service) receiveBlock(req *request) (*payload, error) {
	if req.Header.Get("x-ms-copy-source") != "" {
		return s.receiveSource(req)
	}
	if req.ContentLength == 0 && req.Header.Get("Content-Length") != "" {
		return nil, newError(codeInvalidHeader, "A block has at least one byte; Content-Length is 0.")
	}
	return s.receiveBody(req, -1)
}

// checkStage is what staging a block depends on: the blob's lease and type, and
// that ids have one length among the staged.
func (s *Service) checkStage(req *request, key blobKey, idLen int) error {
	old, _, err := s.getBlob(req.Context(), key)
	if err != nil {
		return err
	}
	if old.live() {
		if old.Type != blockBlob {
			return errBlobType()
		}
		if err := old.Lease.checkBlobWrite(req); err != nil {
			return err
		}
	}
	for b, err := range s.staged(req.Context(), key, old) {
		if err != nil {
			return err
		}
		if other, err := base64.StdEncoding.DecodeString(b.id); err == nil && len(other) != idLen {
			return newError(codeInvalidBlobOrBlock, "The specified blob or block content is invalid: block ids of one blob have one length, and others staged have %d bytes.", len(other))
		}
		break
	}
	return nil
}

func errBlobType() *Error {
	return newError(codeInvalidBlobType, "The blob type is invalid for this operation.")
}

// stagedBlock is a block that is staged and alive.
type stagedBlock struct {
	id string
	stagedRecord
}

// staged yields a blob's staged blocks in the order of their ids, of those that
// the blob's record has not made invisible.
func (s *Service) staged(ctx context.Context, key blobKey, r *blobRecord) func(yield func(stagedBlock, error) bool) {
	return func(yield func(stagedBlock, error) bool) {
		for e, err := range s.meta.List(ctx, stagedPrefix(key), "") {
			if err != nil {
				yield(stagedBlock{}, storageError("listing blocks", err))
				return
			}
			_, id, _ := splitStaged(e.Key)
			b := stagedBlock{id: id}
			if err := decodeJSON(e.Value, &b.stagedRecord); err != nil || !validFileID(b.File) {
				yield(stagedBlock{}, storageError("reading a block's record", errBadRecord))
				return
			}
			if b.dead(r, s.now().UnixMilli(), s.o.StagedFor.Milliseconds()) {
				continue
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// dead tells whether a staged block counts no more: committed or dropped by the
// blob's record, or too old.
func (b *stagedRecord) dead(r *blobRecord, now, keep int64) bool {
	return r != nil && b.Stamp <= r.BlocksBefore || now-b.At > keep
}

// blockRef is one entry of a block list.
type blockRef struct {
	kind string // Latest, Committed, Uncommitted
	id   string
}

// parseBlockList reads the body of Put Block List.
func parseBlockList(b []byte) ([]blockRef, error) {
	var refs []blockRef
	d := xml.NewDecoder(bytes.NewReader(b))
	depth := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && depth == 0 && refs != nil {
			return refs, nil
		}
		if err != nil {
			return nil, xmlError(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			if depth == 1 {
				if t.Name.Local != "BlockList" || refs != nil {
					return nil, xmlError(errBlockList)
				}
				refs = []blockRef{}
				continue
			}
			switch t.Name.Local {
			case "Latest", "Committed", "Uncommitted":
			default:
				return nil, xmlError(errBlockList)
			}
			var id string
			if err := d.DecodeElement(&id, &t); err != nil {
				return nil, xmlError(err)
			}
			depth-- // its end has been read too
			if len(refs) == maxBlocks {
				return nil, newError(codeBlockListTooLong, "The block list has more than %d blocks.", maxBlocks)
			}
			refs = append(refs, blockRef{t.Name.Local, strings.ReplaceAll(strings.TrimSpace(id), " ", "+")})
		case xml.EndElement:
			depth--
		}
	}
}

var errBlockList = &xml.SyntaxError{Msg: "not a BlockList of Latest, Committed and Uncommitted"}

func (s *Service) putBlockList(req *request) error {
	props, err := readProperties(req.Header, false)
	if err != nil {
		return err
	}
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	if err := s.precheckPut(req, cond, key); err != nil {
		return err
	}
	body, err := s.readDocument(req, maxBlockXML)
	if err != nil {
		return err
	}
	refs, err := parseBlockList(body)
	if err != nil {
		return err
	}
	r, err := s.commitBlocks(req, key, cond, props, refs)
	if err != nil {
		return err
	}
	s.later(cleanJob{blob: key})
	req.setVersion(r.ETag, r.Modified)
	if len(r.MD5) > 0 {
		req.set("Content-MD5", md5Text(r.MD5))
	}
	req.set("x-ms-request-server-encrypted", "true")
	req.w.WriteHeader(http.StatusCreated)
	return nil
}

// commitBlocks makes the blob of the named blocks.
func (s *Service) commitBlocks(req *request, key blobKey, cond conditions, props *blobRecord, refs []blockRef) (*blobRecord, error) {
	var pinned []string
	defer func() { s.unpinAll(pinned) }()
	r, err := s.changeBlob(req.Context(), key, func(old *blobRecord) (*blobRecord, error) {
		s.unpinAll(pinned) // of an attempt that lost
		pinned = nil
		if err := req.checkPut(cond, old); err != nil {
			return nil, err
		}
		if old.live() && old.Type != blockBlob {
			return nil, errBlobType()
		}
		next := *props
		next.Type = blockBlob
		next.Lease = old.leaseKept(req.now)
		if err := s.stamp(req.Context(), &next, old); err != nil {
			return nil, err
		}
		var err error
		pinned, err = s.assemble(req.Context(), key, old, &next, refs)
		return &next, err
	})
	if err != nil && unknownOutcome(err) {
		pinned = nil // they may be part of the blob: the next start will tell
	}
	return r, err
}

func (s *Service) unpinAll(files []string) {
	for _, file := range files {
		s.files.unpin(file)
	}
}

// assemble makes the named blocks the content of next. The files of staged ones
// are returned pinned: a block may expire meanwhile. The blob's record was read
// before the staged ones are, so that if its Put succeeds, none of these has
// been committed by anyone else.
func (s *Service) assemble(ctx context.Context, key blobKey, old, next *blobRecord, refs []blockRef) (pinned []string, err error) {
	wanted := make(map[string]bool, len(refs))
	for _, ref := range refs {
		wanted[ref.id] = true
	}
	staged := map[string]stagedRecord{}
	for b, err := range s.staged(ctx, key, old) {
		if err != nil {
			return pinned, err
		}
		next.BlocksBefore = max(next.BlocksBefore, b.Stamp)
		if wanted[b.id] {
			staged[b.id] = b.stagedRecord
		}
	}
	committed := map[string]segment{}
	if old.live() {
		for _, seg := range old.Segments {
			if seg.Block != "" {
				committed[seg.Block] = seg
			}
		}
	}
	next.Segments = make([]segment, 0, len(refs))
	for _, ref := range refs {
		seg, isCommitted := committed[ref.id]
		b, isStaged := staged[ref.id]
		switch {
		case isStaged && ref.kind != "Committed":
			s.files.pin(b.File)
			pinned = append(pinned, b.File)
			if !s.files.exists(b.File) {
				return pinned, errNoBlock(ref.id) // swept before we pinned it
			}
			seg = segment{Block: ref.id, File: b.File, Size: b.Size}
		case isCommitted && ref.kind != "Uncommitted":
		default:
			return pinned, errNoBlock(ref.id)
		}
		next.Segments = append(next.Segments, seg)
		next.Size += seg.Size
	}
	return pinned, nil
}

func errNoBlock(id string) *Error {
	return newError(codeInvalidBlockList, "The specified block list is invalid: there is no block %q.", clip(id))
}

func (s *Service) getBlockList(req *request) error {
	which := strings.ToLower(req.query.get("blocklisttype"))
	switch which {
	case "":
		which = "committed"
	case "committed", "uncommitted", "all":
	default:
		return newError(codeInvalidQuery, "The blocklisttype is none of committed, uncommitted and all.")
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	r, _, err := s.getBlob(req.Context(), key)
	if err != nil {
		return err
	}
	if r.live() && r.Type != blockBlob {
		return errBlobType()
	}
	var x xmlWriter
	x.open("BlockList")
	if which != "uncommitted" {
		x.open("CommittedBlocks")
		if r.live() {
			for _, seg := range r.Segments {
				if seg.Block != "" {
					x.block(seg.Block, seg.Size)
				}
			}
		}
		x.close("CommittedBlocks")
	}
	any := r.live()
	x.open("UncommittedBlocks")
	for b, err := range s.staged(req.Context(), key, r) {
		if err != nil {
			return err
		}
		any = true
		if which == "committed" {
			break
		}
		x.block(b.id, b.Size)
	}
	x.close("UncommittedBlocks")
	x.close("BlockList")
	if !any {
		return errBlobNotFound()
	}
	if r.live() {
		if err := r.Lease.checkBlobRead(req); err != nil {
			return err
		}
		req.setVersion(r.ETag, r.Modified)
		req.set("x-ms-blob-content-length", strconv.FormatInt(r.Size, 10))
	}
	req.writeXML(http.StatusOK, &x)
	return nil
}

func (x *xmlWriter) block(id string, size int64) {
	x.open("Block")
	x.element("Name", id)
	x.element("Size", strconv.FormatInt(size, 10))
	x.close("Block")
}
