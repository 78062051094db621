package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/azure"
	"github.com/millrace/millrace/capture/capturetest"
	"github.com/millrace/millrace/capture/s3"
)

// freeAddress is an address on loopback that nobody has.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serve runs the program of somebody else's server until the test ends, in a folder of
// its own, and waits until it answers at the address.
func (c *client) serve(t *testing.T, address string, args, env []string) {
	t.Helper()
	c.install(t)
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	run := c.expand(append(c.Run, args...))
	cmd := exec.Command(run[0], run[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // how it ended is in ProcessState
		close(done)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			<-done
		}
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the log of %s ends in\n%s", c.Title, text[max(0, len(text)-6000):])
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		select {
		case <-done:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s ended at once: %v\n%s", c.Title, cmd.ProcessState, text)
		default:
		}
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s doesn't answer within a minute: %v", c.Title, err)
		}
	}
}

const azuriteKey = "Y2FwdHVyZSBzZWNyZXQga2V5"

// startAzurite starts the storage emulator, and returns its connection string.
func startAzurite(t *testing.T) string {
	t.Helper()
	c := loadClient(t, "azurite/client.json")
	address := freeAddress(t)
	host, port, _ := net.SplitHostPort(address)
	c.serve(t, address, []string{"--blobHost", host, "--blobPort", port, "--location", t.TempDir(), "--silent", "--disableTelemetry", "--skipApiVersionCheck"},
		[]string{"AZURITE_ACCOUNTS=capture:" + azuriteKey})
	return fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=capture;AccountKey=%s;BlobEndpoint=http://%s/capture;", azuriteKey, address)
}

// The credentials of the S3 server.
const (
	s3Access = "captureaccess"
	s3Secret = "capturesecret/key+1"
)

// startS3 starts a server of S3's protocol, which keeps files in a file system, and
// returns its address.
func startS3(t *testing.T) string {
	t.Helper()
	c := loadClient(t, "versitygw/client.json")
	address := freeAddress(t)
	c.serve(t, address, []string{"--port", address, "--quiet", "posix", t.TempDir()},
		[]string{"ROOT_ACCESS_KEY=" + s3Access, "ROOT_SECRET_KEY=" + s3Secret})
	return address
}

// TestDestinationAzurite puts captured files into the storage emulator.
func TestDestinationAzurite(t *testing.T) {
	at := startAzurite(t)
	for name, size := range map[string]int64{"blocks of 4 MiB": 0, "blocks of 1 MiB": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			s, err := azure.New(azure.Options{ConnectionString: at, CreateContainer: true, BlockSize: size})
			if err != nil {
				t.Fatal(err)
			}
			capturetest.Run(t, capturetest.Destination{
				New:      func(*testing.T) capture.Destination { return s },
				Metadata: true, ListsMetadata: true, Secrets: []string{azuriteKey}, Piece: 4 << 20, // the default BlockSize
			})
		})
	}
}

// TestDestinationS3 puts captured files into a server of S3's protocol.
func TestDestinationS3(t *testing.T) {
	address := startS3(t)
	client, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(s3Access, s3Secret, "")})
	if err != nil {
		t.Fatal(err)
	}
	conditionsHold(t, client)
	for name, o := range map[string]s3.Options{
		"in one piece":    {Region: "us-east-1"},
		"in parts":        {PartSize: 5 << 20, PathStyle: true},
		"check, then put": {PartSize: 5 << 20, CheckThenPut: true},
	} {
		t.Run(name, func(t *testing.T) {
			o.Endpoint, o.AccessKey, o.SecretKey, o.CreateBucket = "http://"+address, s3Access, s3Secret, true
			s, err := s3.New(o)
			if err != nil {
				t.Fatal(err)
			}
			capturetest.Run(t, capturetest.Destination{
				New:      func(*testing.T) capture.Destination { return s },
				Metadata: true, Secrets: []string{s3Access, s3Secret}, OneWriter: o.CheckThenPut,
			})
			noneLeft(t, client, s)
		})
	}
}

// conditionsHold tells whether the server is one to test with: whether it heeds
// If-None-Match.
func conditionsHold(t *testing.T, client *minio.Client) {
	t.Helper()
	ctx := context.Background()
	if err := client.MakeBucket(ctx, "conditions", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	o := minio.PutObjectOptions{}
	o.SetMatchETagExcept("*")
	core := minio.Core{Client: client}
	put := func() error {
		_, err := core.PutObject(ctx, "conditions", "x", strings.NewReader("x"), 1, "", "", o)
		return err
	}
	complete := func() error {
		id, err := core.NewMultipartUpload(ctx, "conditions", "x", minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer core.AbortMultipartUpload(ctx, "conditions", "x", id)
		p, err := core.PutObjectPart(ctx, "conditions", "x", id, 1, bytes.NewReader([]byte("y")), 1, minio.PutObjectPartOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = core.CompleteMultipartUpload(ctx, "conditions", "x", id, []minio.CompletePart{{PartNumber: 1, ETag: p.ETag}}, o)
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{"PutObject": put, "CompleteMultipartUpload": complete} {
		err := try()
		e := minio.ToErrorResponse(err)
		t.Logf("%s over an object, with If-None-Match: *: %d %s %s", name, e.StatusCode, e.Code, e.Message)
		if e.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("%s over an object, with If-None-Match: *: %v", name, err)
		}
	}
}

// noneLeft puts a large file a few times under one name, and wants no upload to be left
// of those that come too late.
func noneLeft(t *testing.T, client *minio.Client, s *s3.Storage) {
	t.Helper()
	const size = 21 << 20
	spool := filepath.Join(t.TempDir(), "spool")
	if err := os.WriteFile(spool, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	bucket := strings.ReplaceAll(strings.ToLower(filepath.Base(t.Name())), "_", "-")
	bucket = "none-left-" + strings.ReplaceAll(bucket, ",", "")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			err := s.Put(t.Context(), bucket, "a.avro", &capture.File{Path: spool, Size: size})
			if err != nil && !errors.Is(err, capture.ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for u := range client.ListIncompleteUploads(t.Context(), bucket, "", true) {
		t.Errorf("an upload is left: %+v", u)
	}
}
