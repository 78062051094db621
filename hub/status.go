package hub

// Status says what may be done with an event hub. The zero value is StatusActive.
// Source: features.md, section 1; EntityStatus of Microsoft.EventHub.
type Status string

// The statuses that can be set.
const (
	StatusActive          Status = "Active"
	StatusDisabled        Status = "Disabled"
	StatusSendDisabled    Status = "SendDisabled"
	StatusReceiveDisabled Status = "ReceiveDisabled"
)

// What a status closes a hub to.
const (
	shutToSend = 1 << iota
	shutToReceive
)

func (s Status) shut() uint32 {
	switch s {
	case StatusDisabled:
		return shutToSend | shutToReceive
	case StatusSendDisabled:
		return shutToSend
	case StatusReceiveDisabled:
		return shutToReceive
	}
	return 0
}

func (s Status) check(hub string) error {
	switch s {
	case "", StatusActive, StatusDisabled, StatusSendDisabled, StatusReceiveDisabled:
		return nil
	}
	return fail(InvalidArgument, hub, "'%s' is not one of the statuses Active, Disabled, SendDisabled, ReceiveDisabled.", s)
}

// Status is the hub's current status.
func (h *EventHub) Status() Status {
	if s := h.Settings().Status; s != "" {
		return s
	}
	return StatusActive
}

// MaySend returns why nothing can be sent to the hub, if its status forbids it:
// an *Error of kind Disabled.
func (h *EventHub) MaySend() error {
	if h.shut.Load()&shutToSend != 0 {
		return h.disabled()
	}
	return nil
}

func (h *EventHub) mayReceive() error {
	if h.shut.Load()&shutToReceive != 0 {
		return h.disabled()
	}
	return nil
}

func (h *EventHub) disabled() *Error {
	return fail(Disabled, h.Name, "The messaging entity 'sb://%s/%s' is disabled: its status is %s.", h.ns.Name, h.Name, h.Status())
}
