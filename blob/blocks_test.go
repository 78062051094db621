package blob

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// id makes a block id of a number, percent-encoded for a query.
func id(n int) string { return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "block-%06d", n)) }

func (b *bench) stage(path string, n int, body string, headers ...string) *answer {
	b.t.Helper()
	return b.do("PUT", path+"?comp=block&blockid="+url.QueryEscape(id(n)), body, headers...)
}

// commit puts a list; each entry is a kind's first letter and a block's number.
func (b *bench) commit(path string, list []string, headers ...string) *answer {
	b.t.Helper()
	var x strings.Builder
	x.WriteString(`<?xml version="1.0" encoding="utf-8"?><BlockList>`)
	for _, entry := range list {
		kind := map[byte]string{'L': "Latest", 'C': "Committed", 'U': "Uncommitted"}[entry[0]]
		var n int
		fmt.Sscan(entry[1:], &n)
		fmt.Fprintf(&x, "<%s>%s</%s>", kind, id(n), kind)
	}
	x.WriteString("</BlockList>")
	return b.do("PUT", path+"?comp=blocklist", x.String(), headers...)
}

// blocks lists a blob's blocks: committed | uncommitted, as "number:size".
func (b *bench) blocks(path string) string {
	b.t.Helper()
	a := b.do("GET", path+"?comp=blocklist&blocklisttype=all", "")
	if a.status != 200 {
		return a.code()
	}
	text := a.body
	for n := range 100 {
		text = strings.ReplaceAll(text, "<Name>"+id(n)+"</Name><Size>", fmt.Sprintf("%d:", n))
	}
	text = strings.NewReplacer(xmlHeader, "", "<BlockList>", "", "</BlockList>", "", "<CommittedBlocks>", "", "</CommittedBlocks><UncommittedBlocks>", "|",
		"</UncommittedBlocks>", "", "<Block>", "", "</Size></Block>", " ").Replace(text)
	return strings.TrimSpace(text)
}

func TestBlocks(t *testing.T) {
	b := newBench(t)
	x := b.container("con") + "/x"
	want := func(content, blocks string) {
		t.Helper()
		if a := b.do("GET", x, ""); a.body != content && a.status == 200 || (a.status == 404) != (content == "404") {
			t.Errorf("content %d %q, want %q", a.status, a.body, content)
		}
		if got := b.blocks(x); got != blocks {
			t.Errorf("blocks %q, want %q", got, blocks)
		}
	}
	want("404", "BlobNotFound")
	b.stage(x, 1, "one").want(201, "")
	b.stage(x, 2, "two!").want(201, "")
	b.stage(x, 3, "three").want(201, "")
	want("404", "|1:3 2:4 3:5")
	b.stage(x, 1, "ONE+").want(201, "") // replaced
	want("404", "|1:4 2:4 3:5")
	b.commit(x, []string{"L1", "C2"}).want(400, codeInvalidBlockList)
	b.commit(x, []string{"L1", "U9"}).want(400, codeInvalidBlockList)
	a := b.commit(x, []string{"L2", "U1", "L2"}, "x-ms-blob-content-type", "text/plain", "Content-Type", "application/xml", "x-ms-meta-k", "v").want(201, "")
	if a.get("ETag") == "" || a.get("Last-Modified") == "" {
		t.Errorf("commit answers %v", a.header)
	}
	want("two!ONE+two!", "2:4 1:4 2:4 |") // 3 has been dropped
	if a := b.do("HEAD", x, ""); a.get("Content-Type") != "text/plain" || a.get("x-ms-meta-k") != "v" || a.get("Content-MD5") != "" {
		t.Errorf("headers %v", a.header)
	}
	// Latest prefers what is staged; Committed and Uncommitted say what they mean.
	b.stage(x, 1, "un").want(201, "")
	want("two!ONE+two!", "2:4 1:4 2:4 |1:2")
	b.commit(x, []string{"C1", "U1", "L1", "L2"}).want(201, "")
	want("ONE+ununtwo!", "1:4 1:2 1:2 2:4 |")
	b.commit(x, []string{"L3"}).want(400, codeInvalidBlockList)
	b.commit(x, nil).want(201, "")
	want("", "|")
	b.tidy()
	if n, keys := b.files(), b.meta.keys("blob/u/"); n != 0 || len(keys) != 0 {
		t.Errorf("left over: %d files, %q", n, keys)
	}
	// Put Blob drops what is staged, and so does deleting.
	b.stage(x, 1, "a").want(201, "")
	b.put(x, "whole").want(201, "")
	want("whole", "|")
	b.stage(x, 1, "a").want(201, "")
	b.do("DELETE", x, "").want(202, "")
	want("404", "BlobNotFound")
	b.commit(x, []string{"L1"}).want(400, codeInvalidBlockList)
	b.stage(x, 1, "a").want(201, "")
	b.commit(x, []string{"L1"}).want(201, "")
	want("a", "1:1 |")
}

func TestBlockRules(t *testing.T) {
	b := newBench(t)
	x := b.container("con") + "/x"
	for blockid, code := range map[string]Code{
		"": codeInvalidQuery, "%21": codeInvalidQuery, "AAA": codeInvalidQuery,
		url.QueryEscape(base64.StdEncoding.EncodeToString(make([]byte, 65))): codeInvalidQuery,
	} {
		b.do("PUT", x+"?comp=block&blockid="+blockid, "x").want(400, code)
	}
	b.do("PUT", x+"?comp=block&blockid="+url.QueryEscape(base64.StdEncoding.EncodeToString(make([]byte, 64))), "x").want(201, "")
	b.stage(x, 1, "x").want(400, codeInvalidBlobOrBlock) // another length
	b.stage("/con/y", 1, "").want(400, codeInvalidHeader)
	b.stage("/none/y", 1, "x").want(404, ContainerNotFound)
	b.commit("/none/y", []string{"L1"}).want(404, ContainerNotFound)
	for _, doc := range []string{
		"", "x", "<x/>", "<BlockList>", "<BlockList><Latest>", "<BlockList><Other>AAAA</Other></BlockList>", "<BlockList/><BlockList/>",
		"<BlockList><Latest><b/>AAAA</Latest></BlockList", "<Latest>AAAA</Latest>", "<?xml version='1.0' encoding='utf-16'?><BlockList/>",
		"<!DOCTYPE x [<!ENTITY a 'b'>]><BlockList><Latest>&a;</Latest></BlockList>",
	} {
		if a := b.do("PUT", x+"?comp=blocklist", doc); a.code() != string(codeInvalidXML) {
			t.Errorf("%q: %d %s", doc, a.status, a.code())
		}
	}
	list := "<BlockList>" + strings.Repeat("<Latest>AAAA</Latest>", maxBlocks+1) + "</BlockList>"
	b.do("PUT", x+"?comp=blocklist", list).want(400, codeBlockListTooLong)
	b.do("PUT", x+"?comp=blocklist", list+strings.Repeat(" ", maxBlockXML)).want(413, codeTooLarge)
	b.do("PUT", x+"?comp=blocklist", "<BlockList/>", "Content-MD5", md5Text(make([]byte, 16))).want(400, codeMD5Mismatch)
	b.do("GET", x+"?comp=blocklist&blocklisttype=some", "").want(400, codeInvalidQuery)
	// Double-encoded ids, as Python makes them, are opaque.
	double := base64.StdEncoding.EncodeToString([]byte("MDAwMDA%3D"))
	b.do("PUT", "/con/z?comp=block&blockid="+url.QueryEscape(double), "x").want(201, "")
	b.do("PUT", "/con/z?comp=blocklist", "<BlockList>\n <Latest> "+double+"\n</Latest></BlockList>").want(201, "")
}

func TestManyBlocks(t *testing.T) {
	b := newBench(t)
	x := b.container("con") + "/x"
	var list []string
	var want strings.Builder
	for n := range 300 {
		part := fmt.Sprintf("part %d;", n)
		b.stage(x, n, part).must(201)
		want.WriteString(part)
		list = append(list, fmt.Sprintf("L%d", n))
	}
	b.commit(x, list).must(201)
	b.restart()
	if a := b.do("GET", x, ""); a.body != want.String() {
		t.Error("content differs")
	}
	whole := want.String()
	for from := 0; from < len(whole); from += 97 {
		a := b.do("GET", x, "", "Range", fmt.Sprintf("bytes=%d-%d", from, from+200))
		if a.body != whole[from:min(len(whole), from+201)] {
			t.Fatalf("range from %d", from)
		}
	}
	b.tidy()
	if a := b.do("GET", x, ""); a.body != whole || len(b.meta.keys("blob/u/")) != 0 {
		t.Error("the sweep took what is in use, or left what is not")
	}
}

func TestStagedBlocksExpire(t *testing.T) {
	b := newBench(t)
	x := b.container("con") + "/x"
	b.stage(x, 1, "one").must(201)
	b.clock.move(7 * 24 * time.Hour)
	b.stage(x, 2, "two").must(201)
	b.tidy()
	if got := b.blocks(x); got != "|1:3 2:3" {
		t.Errorf("within seven days: %q", got)
	}
	b.clock.move(time.Second)
	if got := b.blocks(x); got != "|2:3" {
		t.Errorf("after seven days: %q", got)
	}
	b.commit(x, []string{"L1"}).want(400, codeInvalidBlockList)
	b.tidy() // deletes the record
	b.tidy() // and then the file
	if n := b.files(); n != 1 || len(b.meta.keys("blob/u/")) != 1 {
		t.Errorf("%d files, %q", n, b.meta.keys("blob/u/"))
	}
	b.commit(x, []string{"L2"}).want(201, "")
}

func FuzzBlockList(f *testing.F) {
	f.Add([]byte(`<?xml version="1.0" encoding="utf-8"?><BlockList><Latest>AAAA</Latest><Committed>BBBB</Committed></BlockList>`))
	f.Add([]byte(`<BlockList/>`))
	f.Add([]byte(`<BlockList><Uncommitted> A <!-- c --></Uncommitted></BlockList>`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		refs, err := parseBlockList(doc)
		if err == nil && (refs == nil || len(refs) > maxBlocks) {
			t.Fatalf("%d blocks without an error", len(refs))
		}
		for _, r := range refs {
			if r.kind != "Latest" && r.kind != "Committed" && r.kind != "Uncommitted" {
				t.Fatalf("kind %q", r.kind)
			}
		}
	})
}
