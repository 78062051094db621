package archive

import (
	"fmt"

	"github.com/millrace/millrace/event"
)

// Problem is something wrong with the files of a partition.
type Problem struct {
	Partition Partition
	Kind      Kind
	// First and Last are the sequence numbers that it is about.
	First, Last event.SequenceNumber
	// Before and After are the files that it is between; of a hole they are the same.
	Before, After *File
}

// Kind is what is wrong.
type Kind string

// The kinds of problems.
const (
	// Gap says that events between two files are in none.
	Gap Kind = "gap"
	// Hole says that some events within one file's range are not in it.
	Hole Kind = "hole"
	// Overlap says that events are in two files, or that a hub was made anew and its
	// numbers have begun again.
	Overlap Kind = "overlap"
)

// String says what is wrong, and where.
func (p *Problem) String() string {
	numbers := fmt.Sprintf("#%d", p.First)
	if p.Last > p.First {
		numbers += fmt.Sprintf(" to #%d", p.Last)
	}
	switch p.Kind {
	case Hole:
		return fmt.Sprintf("%s: %d of the events %s are missing in %s", p.Partition, p.Before.Missing(), numbers, p.Before.Place())
	case Overlap:
		return fmt.Sprintf("%s: %s are in %s and again in %s", p.Partition, numbers, p.Before.Place(), p.After.Place())
	}
	return fmt.Sprintf("%s: %s are missing between %s and %s", p.Partition, numbers, p.Before.Place(), p.After.Place())
}

// Check looks for what is missing or there twice, in sorted files. It says nothing
// about files of no known partition, or across files that have not been counted.
// Nobody knows what came before the first file and after the last.
func Check(files []*File) []Problem {
	var found []Problem
	var last *File // with the partition's highest number so far
	for i, f := range files {
		of, named := f.Partition()
		if i > 0 {
			if before, ok := files[i-1].Partition(); !ok || before != of {
				last = nil
			}
		}
		if !named || !f.Counted {
			last = nil
			continue
		}
		if f.Events == 0 {
			continue
		}
		if f.Missing() > 0 {
			found = append(found, Problem{of, Hole, f.First, f.Last, f, f})
		}
		if last != nil {
			switch {
			case f.First > last.Last+1:
				found = append(found, Problem{of, Gap, last.Last + 1, f.First - 1, last, f})
			case f.First <= last.Last:
				found = append(found, Problem{of, Overlap, f.First, min(f.Last, last.Last), last, f})
			}
		}
		if last == nil || f.Last > last.Last {
			last = f
		}
	}
	return found
}
