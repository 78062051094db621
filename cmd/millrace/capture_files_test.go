package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/capture/archive"
	"github.com/millrace/millrace/capture/azure"
	"github.com/millrace/millrace/capture/folder"
	"github.com/millrace/millrace/capture/s3"
)

func TestLocations(t *testing.T) {
	for _, name := range []string{envStorage, envAccessKey, envSecretKey, envSessionToken, envRegion, envEndpoint} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	t.Chdir(filepath.Dir(dir))
	relative := filepath.Base(dir)
	keys := func(t *testing.T) {
		t.Setenv(envAccessKey, "AKIDSECRET")
		t.Setenv(envSecretKey, "KEYSECRET")
	}
	for _, c := range []struct {
		text  string
		flags captureFiles
		env   func(*testing.T)

		container, within, shown, fault string
	}{
		{text: dir, shown: dir + "/"},
		{text: dir + "/", shown: dir + "/"},
		{text: relative, shown: relative + "/"},
		{text: "./" + relative, shown: relative + "/"},
		{text: relative + "/x.avro", fault: "there is no such folder or file"},
		{text: "blob://capture", container: "capture", shown: "blob://capture/"},
		{text: "blob://capture/localhost/orders", container: "capture", within: "localhost/orders", shown: "blob://capture/"},
		{text: "blob://", fault: "names no container"},
		{text: "blob://c", flags: captureFiles{storage: "AccountName=a;AccountKey=KEYSECRET"}, fault: "--storage-connection-string: "},
		{text: "blob://c", env: func(t *testing.T) { t.Setenv(envStorage, "nonsense;AccountKey=KEYSECRET") }, fault: "$AZURE_STORAGE_CONNECTION_STRING: "},
		{text: "s3://bucket/a/b", env: keys, container: "bucket", within: "a/b", shown: "s3://bucket/"},
		{text: "s3://bucket", flags: captureFiles{endpoint: "http://127.0.0.1:9000", region: "eu"}, env: keys, container: "bucket", shown: "s3://bucket/"},
		{text: "s3://bucket", flags: captureFiles{endpoint: "http://u:KEYSECRET@127.0.0.1:9000"}, env: keys, fault: "s3://: "},
		{text: "s3://bucket", fault: "needs $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY"},
		{text: "s3:///a", env: keys, fault: "names no container or bucket"},
		{text: "https://a.blob.core.windows.net/c", fault: "there is no kind of location https://"},
	} {
		t.Run(strings.ReplaceAll(c.text, "/", "_"), func(t *testing.T) {
			if c.env != nil {
				c.env(t)
			}
			l, err := c.flags.open(c.text)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "SECRET") && !strings.Contains(c.fault, "_SECRET_") {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := [3]string{l.Container, l.Within, l.Text}, [3]string{c.container, c.within, c.shown}; got != want {
				t.Error(cmp.Diff(want, got))
			}
			kind := "folder"
			switch l.Destination.(type) {
			case *azure.Storage:
				kind = "blob"
			case *s3.Storage:
				kind = "s3"
			case *folder.Folder:
			default:
				t.Errorf("it is a %T", l.Destination)
			}
			if scheme, _, ok := strings.Cut(c.text, "://"); ok && scheme != kind {
				t.Errorf("it is a %T", l.Destination)
			}
		})
	}
}

func TestQuery(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	for _, c := range []struct {
		from, until string
		want        archive.Query
		fault       string
	}{
		{from: "earliest"},
		{from: "#7", want: archive.Query{From: 7}},
		{from: "-15m", until: "-5m", want: archive.Query{Since: now.Add(-15 * time.Minute), Until: now.Add(-5 * time.Minute)}},
		{from: "2026-03-14T00:00:00Z", want: archive.Query{Since: time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)}},
		{from: "latest", fault: "--from is earliest"},
		{from: "@7", fault: "--from is earliest"},
		{from: "x", fault: `--from "x" is not one of`},
		{from: "earliest", until: "#9", fault: `--until "#9" is not`},
		{from: "earliest", until: "soon", fault: `--until "soon" is not`},
	} {
		f := selectFlags{from: c.from, until: c.until}
		q, err := f.query(now)
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s to %s: %v", c.from, c.until, err)
			}
		} else if d := cmp.Diff(c.want, q); d != "" || err != nil {
			t.Errorf("%s to %s: %v %s", c.from, c.until, err, d)
		}
	}
}
