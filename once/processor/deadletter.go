package processor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// Application properties of events in a dead-letter hub, beside the event's own. The
// first three are named as Service Bus names them.
const (
	PropertyReason         = "DeadLetterReason"           // ReasonPermanent or ReasonAttempts
	PropertyDescription    = "DeadLetterErrorDescription" // the error's text, its first 1,024 bytes
	PropertySource         = "DeadLetterSource"           // namespace/hub
	PropertyConsumerGroup  = "DeadLetterConsumerGroup"
	PropertyPartition      = "DeadLetterPartition"
	PropertySequenceNumber = "DeadLetterSequenceNumber"
	PropertyOffset         = "DeadLetterOffset"
	PropertyEnqueuedTime   = "DeadLetterEnqueuedTime" // RFC 3339, UTC
	PropertyAttempts       = "DeadLetterAttempts"
	// PropertyOmitted says, of an event that was too large to be kept with these
	// properties, how many bytes of body (in data sections) and properties are left out.
	// The source has it.
	PropertyOmitted = "DeadLetterOmittedBytes"
)

// Values of PropertyReason.
const (
	ReasonPermanent = "Poison"
	ReasonAttempts  = "MaxAttemptsExceeded"
)

// Hub returns where events are put aside in another event hub: each with its body,
// properties, content type, ids and partition key, and with application properties that
// say why and where it is from. The producer stays the caller's to close.
func Hub(producer *azeventhubs.ProducerClient) DeadLetters { return &hubLetters{producer} }

type hubLetters struct{ producer *azeventhubs.ProducerClient }

// Park implements [DeadLetters].
func (h *hubLetters) Park(ctx context.Context, d DeadLetter) error {
	o := &azeventhubs.EventDataBatchOptions{PartitionKey: d.Event.PartitionKey}
	batch, err := h.producer.NewEventDataBatch(ctx, o)
	if err != nil {
		return fmt.Errorf("the dead-letter hub: %w", err)
	}
	err = batch.AddAMQPAnnotatedMessage(letter(d), nil)
	if errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
		err = batch.AddEventData(note(d), nil)
	}
	if err != nil {
		return fmt.Errorf("the dead-letter hub: %w", err)
	}
	if err := h.producer.SendEventDataBatch(ctx, batch, nil); err != nil {
		return fmt.Errorf("the dead-letter hub: %w", err)
	}
	return nil
}

// annotations are those of an event that are the broker's to set.
var annotations = []string{
	"x-opt-partition-key", "x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time", "x-opt-publisher", "x-opt-sequence-number-epoch",
}

// Copy returns a received event's message to be sent again, with all that it had but the
// broker's annotations, of which the partition key is for the batch to be made with. Its
// sections are the event's own; the map of its annotations is not.
func Copy(e *azeventhubs.ReceivedEventData) *azeventhubs.AMQPAnnotatedMessage {
	m := *e.RawAMQPMessage
	m.DeliveryAnnotations, m.DeliveryTag = nil, nil // they were of that delivery
	m.MessageAnnotations = make(map[any]any, len(e.RawAMQPMessage.MessageAnnotations))
	for name, v := range e.RawAMQPMessage.MessageAnnotations {
		if text, ok := name.(string); !ok || !slices.Contains(annotations, text) {
			m.MessageAnnotations[name] = v
		}
	}
	return &m
}

// letter is the event as it is put aside: whole, with a body of whatever kind.
func letter(d DeadLetter) *azeventhubs.AMQPAnnotatedMessage {
	m := Copy(d.Event)
	m.ApplicationProperties = maps.Clone(m.ApplicationProperties)
	if m.ApplicationProperties == nil {
		m.ApplicationProperties = map[string]any{}
	}
	describe(d, m.ApplicationProperties)
	return m
}

// note is what is put aside of an event that is too large.
func note(d DeadLetter) *azeventhubs.EventData {
	p := map[string]any{}
	describe(d, p)
	left := 0
	for _, section := range d.Event.RawAMQPMessage.Body.Data {
		left += len(section)
	}
	for name, value := range d.Event.Properties {
		left += len(name) + len(fmt.Sprint(value))
	}
	p[PropertyOmitted] = int64(left)
	return &azeventhubs.EventData{MessageID: d.Event.MessageID, CorrelationID: d.Event.CorrelationID, ContentType: d.Event.ContentType, Properties: p}
}

func describe(d DeadLetter, p map[string]any) {
	p[PropertyReason] = ReasonAttempts
	if d.Permanent {
		p[PropertyReason] = ReasonPermanent
	}
	p[PropertyDescription] = clip(d.Err.Error(), 1024)
	p[PropertySource] = d.Stream.Namespace + "/" + d.Stream.Hub
	p[PropertyConsumerGroup] = d.Stream.Group
	p[PropertyPartition] = d.Stream.Partition
	p[PropertySequenceNumber] = d.Event.SequenceNumber
	p[PropertyOffset] = d.Event.Offset
	if d.Event.EnqueuedTime != nil {
		p[PropertyEnqueuedTime] = d.Event.EnqueuedTime.UTC().Format(time.RFC3339Nano)
	}
	p[PropertyAttempts] = int64(d.Attempts)
}

// clip is a text's first bytes, in whole characters of UTF-8.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
