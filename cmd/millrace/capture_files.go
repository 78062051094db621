package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/archive"
	"github.com/millrace/millrace/capture/folder"
)

// locationHelp is what commands say of where captured files are.
const locationHelp = "A LOCATION is a folder or a file."

// captureFiles are the flags by which captured files are found.
type captureFiles struct {
	nameFormat string
	eventHub   string
}

func (f *captureFiles) add(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVar(&f.nameFormat, "name-format", capture.DefaultNameFormat, "`PATTERN` that the files were named by")
	set.StringVar(&f.eventHub, "event-hub", "", "`HUB` whose files are wanted, where there are several's")
}

// open finds out what a location's text means: this is where kinds of destinations
// are told apart.
func (f *captureFiles) open(text string) (*archive.Location, error) {
	scheme, _, ok := strings.Cut(text, "://")
	switch {
	case !ok:
		return openFolder(text)
	default:
		return nil, misused("%s: there is no kind of location %s://", text, scheme)
	}
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
