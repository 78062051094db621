package millrace

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
)

// VerifyReport is what Verify found in a data folder.
type VerifyReport struct {
	Partitions int   `json:"partitions"`
	Segments   int   `json:"segments"`
	Records    int64 `json:"records"`
	Events     int64 `json:"events"`
	Bytes      int64 `json:"bytes"`
	// Unclean says that no broker closed the folder: the next start recovers it
	// from the journal, which has JournalRecords.
	Unclean        bool  `json:"unclean"`
	JournalRecords int64 `json:"journalRecords"`
	// Unfinished are bytes of writes that a crash cut, and that nobody was told
	// had been stored.
	Unfinished int64    `json:"unfinishedBytes"`
	Damage     []Damage `json:"damage"`
}

// Damage is a place where stored bytes are not what was written.
type Damage struct {
	Partition string `json:"partition,omitempty"` // the log's id, which is also its folder below logs
	File      string `json:"file,omitempty"`      // below the data folder
	Offset    int64  `json:"offset"`              // in the file
	Detail    string `json:"detail"`
}

// Verify reads every stored byte of the log in a data folder, and every event in
// it, and changes nothing. No broker may have the folder open
// (segment.ErrInUse). Damage is in the report; an error is what kept Verify from
// looking.
func Verify(ctx context.Context, data string) (*VerifyReport, error) {
	r, err := segment.Verify(ctx, segment.Options{Dir: data}, verifyRecord)
	if err != nil {
		return nil, err
	}
	report := &VerifyReport{
		Partitions: r.Partitions, Segments: r.Segments, Records: r.Records, Events: r.Events, Bytes: r.Bytes,
		Unclean: r.Unclean, JournalRecords: r.JournalRecords, Unfinished: r.Unfinished, Damage: []Damage{},
	}
	for _, err := range r.Damage {
		d := Damage{Detail: err.Error()}
		var c *store.CorruptError
		if errors.As(err, &c) {
			d = Damage{Partition: c.Log.String(), File: c.File, Offset: c.Offset, Detail: c.Detail}
		}
		report.Damage = append(report.Damage, d)
	}
	return report, nil
}

// verifyRecord looks at what is in a record whose checksums are right.
func verifyRecord(r *event.Record) error {
	if r.Encoding != event.EncodingAMQP {
		return fmt.Errorf("the record is in the encoding %s, which this version can't read", r.Encoding)
	}
	n := 0
	for _, err := range (message.Codec{}).Events(r) {
		if err != nil {
			return fmt.Errorf("event %d of the record: %w", n, err)
		}
		n++
	}
	if n != r.Count {
		return fmt.Errorf("the record says that it has %d events, and has %d", r.Count, n)
	}
	return nil
}
