package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/archive"
	"github.com/millrace/millrace/capture/azure"
	"github.com/millrace/millrace/capture/folder"
	"github.com/millrace/millrace/capture/s3"
)

// locationHelp is what commands say of where captured files are.
const locationHelp = "A LOCATION is a folder, a file, or a container with a folder or a file in it: blob://CONTAINER/FOLDER in a storage\n" +
	"account, s3://BUCKET/FOLDER in S3 and what speaks its protocol, with the keys of $" + envAccessKey + " and\n" +
	"$" + envSecretKey + ", and $" + envSessionToken + " if there is one."

// The environment's variables that clients of S3 read.
const (
	envAccessKey    = "AWS_ACCESS_KEY_ID"
	envSecretKey    = "AWS_SECRET_ACCESS_KEY"
	envSessionToken = "AWS_SESSION_TOKEN"
	envRegion       = "AWS_REGION"
	envEndpoint     = "AWS_ENDPOINT_URL"
)

// captureFiles are the flags by which captured files are found.
type captureFiles struct {
	nameFormat, eventHub string
	storage              string
	endpoint, region     string
}

func (f *captureFiles) add(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVar(&f.nameFormat, "name-format", capture.DefaultNameFormat, "`PATTERN` that the files were named by")
	set.StringVar(&f.eventHub, "event-hub", "", "`HUB` whose files are wanted, where there are several's")
	set.StringVar(&f.storage, "storage-connection-string", "", "`STRING` of the storage account of blob:// (default $"+envStorage+", or else the broker's on this machine)")
	set.StringVar(&f.endpoint, "s3-endpoint", "", "`URL` of the store of s3:// (default $"+envEndpoint+", or else Amazon's)")
	set.StringVar(&f.region, "s3-region", "", "`REGION` of its bucket (default $"+envRegion+", or else what the store says)")
}

// open finds out what a location's text means: this is where kinds of destinations
// are told apart.
func (f *captureFiles) open(text string) (*archive.Location, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return openFolder(text)
	}
	l := &archive.Location{}
	l.Container, l.Within, _ = strings.Cut(rest, "/")
	l.Text = scheme + "://" + l.Container + "/"
	if l.Container == "" {
		return nil, misused("%s names no container or bucket", text)
	}
	var err error
	switch scheme {
	case "blob":
		l.Destination, err = f.openBlob()
	case "s3":
		l.Destination, err = f.openS3()
	default:
		return nil, misused("%s: there is no kind of location %s://; there are folders, blob:// and s3://", text, scheme)
	}
	return l, err
}

// openBlob opens a storage account.
func (f *captureFiles) openBlob() (capture.Destination, error) {
	cs, from := f.storage, "--storage-connection-string"
	if cs == "" {
		cs, from = os.Getenv(envStorage), "$"+envStorage
	}
	if cs == "" {
		cs = millrace.DevStorageConnectionString()
	}
	d, err := azure.New(azure.Options{ConnectionString: cs})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return d, nil
}

// openS3 opens S3, or a store like it.
func (f *captureFiles) openS3() (capture.Destination, error) {
	o := s3.Options{
		Endpoint: cmp.Or(f.endpoint, os.Getenv(envEndpoint)), Region: cmp.Or(f.region, os.Getenv(envRegion)),
		AccessKey: os.Getenv(envAccessKey), SecretKey: os.Getenv(envSecretKey), SessionToken: os.Getenv(envSessionToken),
	}
	if o.AccessKey == "" || o.SecretKey == "" {
		return nil, misused("s3:// needs $%s and $%s", envAccessKey, envSecretKey)
	}
	d, err := s3.New(o)
	if err != nil {
		return nil, fmt.Errorf("s3://: %w", err)
	}
	return d, nil
}

// openFolder opens a folder, or the one that a file is in.
func openFolder(path string) (*archive.Location, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: there is no such folder or file", path)
	case err != nil:
		return nil, err
	}
	l := &archive.Location{}
	if !info.IsDir() {
		path, l.Within = filepath.Split(path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if path != "" {
		l.Text = filepath.ToSlash(filepath.Clean(path)) + "/"
	}
	l.Above = filepath.ToSlash(abs) + "/"
	l.Destination, err = folder.New(abs)
	return l, err
}

// list finds the files of some locations, sorted, and counts others that are there.
func (f *captureFiles) list(ctx context.Context, locations []string) (files []*archive.File, others int, err error) {
	format, err := capture.ParseNameFormat(f.nameFormat)
	if err != nil {
		return nil, 0, &usageError{fmt.Errorf("--name-format: %w", err)}
	}
	for _, text := range locations {
		l, err := f.open(text)
		if err != nil {
			return nil, 0, err
		}
		more, n, err := l.List(ctx, format)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", text, err)
		}
		files, others = append(files, more...), others+n
	}
	if f.eventHub != "" {
		files = slices.DeleteFunc(files, func(x *archive.File) bool {
			return !x.Named || !strings.EqualFold(x.Of.EventHub, f.eventHub)
		})
	}
	archive.Sort(files)
	return files, others, nil
}

// errNoFiles says that there is nothing to read.
func errNoFiles(locations []string) error {
	return fmt.Errorf("there are no captured files (%s, %s) that are wanted in %s", capture.SuffixAvro, capture.SuffixParquet, strings.Join(locations, ", "))
}
