package wire

import (
	"encoding/binary"
	"math"
)

// Descriptors of performatives, of SASL frames, and of what they contain.
const (
	DescOpen          = 0x10
	DescBegin         = 0x11
	DescAttach        = 0x12
	DescFlow          = 0x13
	DescTransfer      = 0x14
	DescDisposition   = 0x15
	DescDetach        = 0x16
	DescEnd           = 0x17
	DescClose         = 0x18
	DescError         = 0x1D
	DescAccepted      = 0x24
	DescRejected      = 0x25
	DescSource        = 0x28
	DescTarget        = 0x29
	DescMechanisms    = 0x40
	DescInit          = 0x41
	DescChallenge     = 0x42
	DescResponse      = 0x43
	DescOutcome       = 0x44
	DescHeader        = 0x70
	DescDeliveryAnn   = 0x71
	DescMessageAnn    = 0x72
	DescProperties    = 0x73
	DescAppProperties = 0x74
	DescData          = 0x75
	DescSequence      = 0x76
	DescValue         = 0x77
	DescFooter        = 0x78
)

// Roles of a link's ends, as attach, disposition and their like have them.
const (
	RoleSender   = false
	RoleReceiver = true
)

// Settle modes.
const (
	SenderUnsettled = 0
	SenderSettled   = 1
	SenderMixed     = 2
	ReceiverFirst   = 0
	ReceiverSecond  = 1
)

// Optional is a field that may be absent.
type Optional struct {
	Value uint32
	Set   bool
}

// Or returns the value, or def if it is absent.
func (o Optional) Or(def uint32) uint32 {
	if o.Set {
		return o.Value
	}
	return def
}

// fields reads a performative's fields in order, and keeps the first error.
type fields struct {
	it  Items
	err error
}

func (f *fields) next() Value {
	v := f.it.Next()
	if f.err == nil {
		f.err = f.it.err
	}
	return v
}

func (f *fields) wrong(v Value, want string) {
	if f.err == nil {
		f.err = malformed("a field of format code 0x%02x, where %s was expected", v.Code, want)
	}
}

func (f *fields) uint() Optional {
	v := f.next()
	if v.IsNull() {
		return Optional{}
	}
	n, ok := v.Uint()
	if !ok || n > math.MaxUint32 {
		f.wrong(v, "an unsigned integer")
	}
	return Optional{uint32(n), true}
}

func (f *fields) need(what string) uint32 {
	o := f.uint()
	if !o.Set && f.err == nil {
		f.err = malformed("the field %s is missing", what)
	}
	return o.Value
}

func (f *fields) bool() bool {
	v := f.next()
	if v.IsNull() {
		return false
	}
	b, ok := v.Bool()
	if !ok {
		f.wrong(v, "a boolean")
	}
	return b
}

func (f *fields) text() []byte {
	v := f.next()
	if v.IsNull() {
		return nil
	}
	b, ok := v.Text()
	if !ok {
		f.wrong(v, "a text")
	}
	return b
}

// ReadPerformative returns the descriptor of the performative at the head of a
// frame's body, its fields, and where the payload begins.
func ReadPerformative(body []byte) (desc byte, list Items, n int, err error) {
	// The common form first: a small ulong and a list.
	if len(body) > 3 && body[0] == CodeDescribed && body[1] == CodeSmallUlong {
		v, size, err := Read(body[3:])
		if err != nil {
			return 0, Items{}, 0, err
		}
		list, err = v.List()
		return body[2], list, 3 + size, err
	}
	v, n, err := Read(body)
	if err != nil {
		return 0, Items{}, 0, err
	}
	code, sym, inner, err := v.Described()
	if err != nil {
		return 0, Items{}, 0, err
	}
	if code == 0 {
		code = symbolicDescriptors[string(sym)]
	}
	if code == 0 || code > 255 {
		return 0, Items{}, 0, malformed("a performative with descriptor 0x%x %q", code, sym)
	}
	list, err = inner.List()
	return byte(code), list, n, err
}

var symbolicDescriptors = map[string]uint64{
	"amqp:open:list": DescOpen, "amqp:begin:list": DescBegin, "amqp:attach:list": DescAttach, "amqp:flow:list": DescFlow,
	"amqp:transfer:list": DescTransfer, "amqp:disposition:list": DescDisposition, "amqp:detach:list": DescDetach,
	"amqp:end:list": DescEnd, "amqp:close:list": DescClose, "amqp:sasl-init:list": DescInit,
	"amqp:sasl-response:list": DescResponse, "amqp:source:list": DescSource, "amqp:target:list": DescTarget,
	"amqp:error:list": DescError, "amqp:accepted:list": DescAccepted, "amqp:rejected:list": DescRejected,
	"amqp:header:list": DescHeader, "amqp:delivery-annotations:map": DescDeliveryAnn,
	"amqp:message-annotations:map": DescMessageAnn, "amqp:properties:list": DescProperties,
	"amqp:application-properties:map": DescAppProperties, "amqp:data:binary": DescData,
	"amqp:amqp-sequence:list": DescSequence, "amqp:amqp-value:*": DescValue, "amqp:footer:map": DescFooter,
}

// DescriptorCode returns the numeric code of a symbolic descriptor that this
// package knows, or 0.
func DescriptorCode(symbol []byte) uint64 { return symbolicDescriptors[string(symbol)] }

// Open is the performative open.
type Open struct {
	ContainerID, Hostname string
	MaxFrameSize          uint32 // 4294967295 when absent
	ChannelMax            uint16 // 65535 when absent
	IdleTimeout           uint32 // milliseconds; 0 when absent
	Properties            Value
}

// Decode reads the fields.
func (o *Open) Decode(list Items) error {
	f := fields{it: list}
	*o = Open{ContainerID: string(f.text()), Hostname: string(f.text())}
	o.MaxFrameSize = f.uint().Or(math.MaxUint32)
	o.ChannelMax = uint16(min(f.uint().Or(math.MaxUint16), math.MaxUint16))
	o.IdleTimeout = f.uint().Or(0)
	for range 4 { // locales, capabilities
		f.next()
	}
	o.Properties = f.next()
	return f.err
}

// Append adds the performative's ten fields to b.
func (o *Open) Append(b []byte) []byte {
	b, at := BeginList(AppendDescriptor(b, DescOpen), 10)
	b = AppendString(b, o.ContainerID)
	if o.Hostname == "" {
		b = AppendNull(b)
	} else {
		b = AppendString(b, o.Hostname)
	}
	b = AppendUint(b, o.MaxFrameSize)
	b = AppendUshort(b, o.ChannelMax)
	b = AppendUint(b, o.IdleTimeout)
	b = append(b, CodeNull, CodeNull, CodeNull, CodeNull)
	b = AppendValue(b, o.Properties)
	EndCompound(b, at)
	return b
}

// Begin is the performative begin.
type Begin struct {
	RemoteChannel  Optional
	NextOutgoingID uint32
	IncomingWindow uint32
	OutgoingWindow uint32
	HandleMax      uint32 // 4294967295 when absent
}

// Decode reads the fields.
func (x *Begin) Decode(list Items) error {
	f := fields{it: list}
	if x.RemoteChannel = f.uint(); x.RemoteChannel.Value > math.MaxUint16 && f.err == nil {
		f.err = malformed("the remote channel %d, where none is above %d", x.RemoteChannel.Value, math.MaxUint16)
	}
	x.NextOutgoingID = f.need("next-outgoing-id")
	x.IncomingWindow = f.need("incoming-window")
	x.OutgoingWindow = f.need("outgoing-window")
	x.HandleMax = f.uint().Or(math.MaxUint32)
	return f.err
}

// Append adds the performative's eight fields to b.
func (x *Begin) Append(b []byte) []byte {
	b, at := BeginList(AppendDescriptor(b, DescBegin), 8)
	if x.RemoteChannel.Set {
		b = AppendUshort(b, uint16(x.RemoteChannel.Value))
	} else {
		b = AppendNull(b)
	}
	b = AppendUint(b, x.NextOutgoingID)
	b = AppendUint(b, x.IncomingWindow)
	b = AppendUint(b, x.OutgoingWindow)
	b = AppendUint(b, x.HandleMax)
	b = append(b, CodeNull, CodeNull, CodeNull)
	EndCompound(b, at)
	return b
}

// Attach is the performative attach. What is to be echoed is kept as it was
// encoded.
type Attach struct {
	Name                 Value
	Handle               uint32
	Role                 bool
	SndSettleMode        Value
	RcvSettleMode        Value
	Source, Target       Value
	InitialDeliveryCount Value
	MaxMessageSize       uint64 // 0 when absent
	OfferedCapabilities  Value
	DesiredCapabilities  Value
	Properties           Value
}

// Decode reads the fields.
func (x *Attach) Decode(list Items) error {
	f := fields{it: list}
	x.Name = f.next()
	x.Handle = f.need("handle")
	x.Role = f.bool()
	x.SndSettleMode, x.RcvSettleMode = f.next(), f.next()
	x.Source, x.Target = f.next(), f.next()
	f.next() // unsettled
	f.next() // incomplete-unsettled
	x.InitialDeliveryCount = f.next()
	v := f.next()
	x.MaxMessageSize = 0
	if !v.IsNull() {
		n, ok := v.Uint()
		if !ok {
			f.wrong(v, "an unsigned integer")
		}
		x.MaxMessageSize = n
	}
	x.OfferedCapabilities, x.DesiredCapabilities = f.next(), f.next()
	x.Properties = f.next()
	if f.err == nil && x.Name.IsNull() {
		f.err = malformed("the field name is missing")
	}
	return f.err
}

// Append adds the performative's fourteen fields to b. A MaxMessageSize of 0 is
// written as null.
func (x *Attach) Append(b []byte) []byte {
	b, at := BeginList(AppendDescriptor(b, DescAttach), 14)
	b = AppendValue(b, x.Name)
	b = AppendUint(b, x.Handle)
	b = AppendBool(b, x.Role)
	b = AppendValue(b, x.SndSettleMode)
	b = AppendValue(b, x.RcvSettleMode)
	b = AppendValue(b, x.Source)
	b = AppendValue(b, x.Target)
	b = append(b, CodeNull, CodeNull)
	b = AppendValue(b, x.InitialDeliveryCount)
	if x.MaxMessageSize == 0 {
		b = AppendNull(b)
	} else {
		b = AppendUlong(b, x.MaxMessageSize)
	}
	b = AppendValue(b, x.OfferedCapabilities)
	b = AppendValue(b, x.DesiredCapabilities)
	b = AppendValue(b, x.Properties)
	EndCompound(b, at)
	return b
}

// Terminus is what a link is attached to: a source or a target.
type Terminus struct {
	Address []byte // nil when absent
	Dynamic bool
	Filter  Value // of a source
}

// Decode reads a source or a target; null is an empty one.
func (t *Terminus) Decode(v Value) error {
	*t = Terminus{}
	if v.IsNull() {
		return nil
	}
	code, sym, inner, err := v.Described()
	if err != nil {
		return err
	}
	if code == 0 {
		code = DescriptorCode(sym)
	}
	it, err := inner.List()
	if err != nil {
		return err
	}
	if code != DescSource && code != DescTarget {
		return malformed("a terminus with descriptor 0x%x %q", code, sym)
	}
	f := fields{it: it}
	t.Address = f.text()
	f.next() // durable
	f.next() // expiry-policy
	f.next() // timeout
	t.Dynamic = f.bool()
	f.next() // dynamic-node-properties
	if code == DescSource {
		f.next() // distribution-mode
		t.Filter = f.next()
	}
	return f.err
}

// Flow is the performative flow.
type Flow struct {
	NextIncomingID Optional
	IncomingWindow uint32
	NextOutgoingID uint32
	OutgoingWindow uint32
	Handle         Optional
	DeliveryCount  Optional
	LinkCredit     Optional
	Available      uint32
	Drain, Echo    bool
}

// Decode reads the fields.
func (x *Flow) Decode(list Items) error {
	f := fields{it: list}
	x.NextIncomingID = f.uint()
	x.IncomingWindow = f.need("incoming-window")
	x.NextOutgoingID = f.need("next-outgoing-id")
	x.OutgoingWindow = f.need("outgoing-window")
	x.Handle = f.uint()
	x.DeliveryCount = f.uint()
	x.LinkCredit = f.uint()
	x.Available = f.uint().Or(0)
	x.Drain, x.Echo = f.bool(), f.bool()
	return f.err
}

// Append adds the performative's eleven fields to b.
func (x *Flow) Append(b []byte) []byte {
	b, at := BeginList(AppendDescriptor(b, DescFlow), 11)
	opt := func(o Optional) {
		if o.Set {
			b = AppendUint(b, o.Value)
		} else {
			b = AppendNull(b)
		}
	}
	opt(x.NextIncomingID)
	b = AppendUint(b, x.IncomingWindow)
	b = AppendUint(b, x.NextOutgoingID)
	b = AppendUint(b, x.OutgoingWindow)
	opt(x.Handle)
	opt(x.DeliveryCount)
	opt(x.LinkCredit)
	if x.Handle.Set {
		b = AppendUint(b, x.Available)
	} else {
		b = AppendNull(b)
	}
	b = AppendBool(b, x.Drain)
	b = AppendBool(b, x.Echo)
	b = AppendNull(b)
	EndCompound(b, at)
	return b
}

// Transfer is the performative transfer, as it is read; servers write theirs
// byte by byte.
type Transfer struct {
	Handle        uint32
	DeliveryID    Optional
	MessageFormat Optional
	Settled       bool
	More          bool
	Aborted       bool
}

// Decode reads the fields.
func (x *Transfer) Decode(list Items) error {
	if x.decodeCommon(list) {
		return nil
	}
	*x = Transfer{}
	return x.decodeAny(list)
}

func (x *Transfer) decodeAny(list Items) error {
	f := fields{it: list}
	x.Handle = f.need("handle")
	x.DeliveryID = f.uint()
	f.next() // delivery-tag
	x.MessageFormat = f.uint()
	x.Settled, x.More = f.bool(), f.bool()
	f.next() // rcv-settle-mode
	f.next() // state
	f.next() // resume
	x.Aborted = f.bool()
	return f.err
}

// decodeCommon reads a transfer in the forms that clients write, and tells
// whether it was one: single messages come with one each.
func (x *Transfer) decodeCommon(list Items) bool {
	b := list.rest
	for i := range list.left {
		if len(b) == 0 {
			return false
		}
		code, size := b[0], 1
		var o Optional
		switch code {
		case CodeNull:
		case CodeUint0, CodeTrue, CodeFalse:
			o.Set = true
		case CodeSmallUint:
			if size = 2; len(b) < size {
				return false
			}
			o = Optional{uint32(b[1]), true}
		case CodeUint:
			if size = 5; len(b) < size {
				return false
			}
			o = Optional{binary.BigEndian.Uint32(b[1:]), true}
		case CodeBinary8:
			if i != 2 || len(b) < 2 || len(b) < 2+int(b[1]) {
				return false
			}
			size = 2 + int(b[1])
		default:
			return false
		}
		b = b[size:]
		number := code == CodeNull || code == CodeUint0 || code == CodeSmallUint || code == CodeUint
		truth := code == CodeNull || code == CodeTrue || code == CodeFalse
		switch i {
		case 0:
			if !number || !o.Set {
				return false
			}
			x.Handle = o.Value
		case 1, 3:
			if !number {
				return false
			}
			if i == 1 {
				x.DeliveryID = o
			} else {
				x.MessageFormat = o
			}
		case 4, 5, 9:
			if !truth {
				return false
			}
			switch i {
			case 4:
				x.Settled = code == CodeTrue
			case 5:
				x.More = code == CodeTrue
			default:
				x.Aborted = code == CodeTrue
			}
		}
	}
	return list.left > 0
}

// Disposition is the performative disposition.
type Disposition struct {
	Role        bool
	First, Last uint32
	Settled     bool
	State       Value
}

// Decode reads the fields.
func (x *Disposition) Decode(list Items) error {
	f := fields{it: list}
	x.Role = f.bool()
	x.First = f.need("first")
	x.Last = f.uint().Or(x.First)
	x.Settled = f.bool()
	x.State = f.next()
	return f.err
}

// AppendDisposition adds a settling disposition of the receiver's role, with
// state as its encoded outcome.
func AppendDisposition(b []byte, role bool, first, last uint32, state []byte) []byte {
	b, at := BeginList(AppendDescriptor(b, DescDisposition), 6)
	b = AppendBool(b, role)
	b = AppendUint(b, first)
	if last == first {
		b = AppendNull(b)
	} else {
		b = AppendUint(b, last)
	}
	b = AppendBool(b, true)
	if state == nil {
		b = AppendNull(b)
	} else {
		b = append(b, state...)
	}
	b = AppendNull(b)
	EndCompound(b, at)
	return b
}

// Accepted is the encoded outcome accepted.
var Accepted = []byte{CodeDescribed, CodeSmallUlong, DescAccepted, CodeList0}

// AppendRejected adds the outcome rejected.
func AppendRejected(b []byte, e *Error) []byte {
	b, at := BeginList(AppendDescriptor(b, DescRejected), 1)
	b = e.Append(b)
	EndCompound(b, at)
	return b
}

// Error is an AMQP error.
type Error struct {
	Condition   string
	Description string
}

// Append adds the error's three fields to b; null for a nil error.
func (e *Error) Append(b []byte) []byte {
	if e == nil {
		return AppendNull(b)
	}
	b, at := BeginList(AppendDescriptor(b, DescError), 3)
	b = AppendSymbol(b, e.Condition)
	b = AppendString(b, e.Description)
	b = AppendNull(b)
	EndCompound(b, at)
	return b
}

// Error implements error.
func (e *Error) Error() string { return e.Condition + ": " + e.Description }

// DecodeError reads an error; nil if there is none, or it can't be read.
func DecodeError(v Value) *Error {
	if v.IsNull() {
		return nil
	}
	_, _, inner, err := v.Described()
	if err != nil {
		return nil
	}
	it, err := inner.List()
	if err != nil {
		return nil
	}
	f := fields{it: it}
	return &Error{Condition: string(f.text()), Description: string(f.text())}
}

// Detach is the performative detach.
type Detach struct {
	Handle uint32
	Closed bool
	Error  *Error
}

// Decode reads the fields.
func (x *Detach) Decode(list Items) error {
	f := fields{it: list}
	x.Handle = f.need("handle")
	x.Closed = f.bool()
	x.Error = DecodeError(f.next())
	return f.err
}

// Append adds the performative's three fields to b.
func (x *Detach) Append(b []byte) []byte {
	b, at := BeginList(AppendDescriptor(b, DescDetach), 3)
	b = AppendUint(b, x.Handle)
	b = AppendBool(b, x.Closed)
	b = x.Error.Append(b)
	EndCompound(b, at)
	return b
}

// AppendEnd adds the performative end, AppendClose close.
func AppendEnd(b []byte, e *Error) []byte { return appendEnding(b, DescEnd, e) }

// AppendClose adds the performative close.
func AppendClose(b []byte, e *Error) []byte { return appendEnding(b, DescClose, e) }

func appendEnding(b []byte, desc byte, e *Error) []byte {
	b, at := BeginList(AppendDescriptor(b, desc), 1)
	b = e.Append(b)
	EndCompound(b, at)
	return b
}

// DecodeEnding reads the error of an end or a close; nil if it has none.
func DecodeEnding(list Items) *Error {
	f := fields{it: list}
	return DecodeError(f.next())
}

// Init is the SASL frame sasl-init.
type Init struct {
	Mechanism string
	Response  []byte
	Hostname  string
}

// Decode reads the fields. Response is a view.
func (x *Init) Decode(list Items) error {
	f := fields{it: list}
	x.Mechanism = string(f.text())
	x.Response = f.text()
	x.Hostname = string(f.text())
	return f.err
}

// AppendMechanisms adds the SASL frame sasl-mechanisms.
func AppendMechanisms(b []byte, mechanisms ...string) []byte {
	b, at := BeginList(AppendDescriptor(b, DescMechanisms), 1)
	b = AppendSymbols(b, mechanisms...)
	EndCompound(b, at)
	return b
}

// AppendOutcome adds the SASL frame sasl-outcome.
func AppendOutcome(b []byte, code byte, data string) []byte {
	b, at := BeginList(AppendDescriptor(b, DescOutcome), 2)
	b = AppendUbyte(b, code)
	b = AppendBinary(b, []byte(data))
	EndCompound(b, at)
	return b
}
