package compat

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/admin"
)

// TestFaults has every fault happen to an application on the official SDK: with
// the SDK's retries it goes on, and without it sees what the service would show.
func TestFaults(t *testing.T) {
	b := Start(t, "--allow-faults")
	ctx, cancel := context.WithTimeout(t.Context(), 3*tierTimeout)
	defer cancel()
	if !strings.Contains(b.Log(), "FAULTS ARE ALLOWED") {
		t.Error("the log does not say that faults are allowed")
	}
	inject := func(f admin.Fault) {
		t.Helper()
		if n, err := b.Admin().Inject(ctx, f); err != nil || n == 0 {
			t.Fatalf("%+v: %d affected, %v", f, n, err)
		}
		if !strings.Contains(b.Log(), "A FAULT IS INJECTED") {
			t.Error("the log does not say that a fault is injected")
		}
	}
	patient, impatient := b.producer(20), b.producer(-1)
	sent := int64(0)
	send := func(what string) {
		t.Helper()
		if err := sendBatch(ctx, patient, 1, 10); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		sent++
	}
	send("before")
	if err := sendBatch(ctx, impatient, 1, 10); err != nil {
		t.Fatal(err)
	}
	sent++

	inject(admin.Fault{Kind: admin.FaultBusy, Hub: "events", For: admin.Duration(2 * time.Second)})
	if err := sendBatch(ctx, impatient, 1, 10); err == nil || !strings.Contains(err.Error(), "50002") {
		t.Errorf("busy: %v", err)
	}
	send("once it is not busy any more")

	inject(admin.Fault{Kind: admin.FaultDelay, For: admin.Duration(time.Hour), Delay: admin.Duration(300 * time.Millisecond)})
	began := time.Now()
	send("delayed")
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("delayed by 300 ms it took %s", took)
	}
	inject(admin.Fault{Kind: admin.FaultClear})

	inject(admin.Fault{Kind: admin.FaultSlowDisk, For: admin.Duration(time.Hour), Delay: admin.Duration(200 * time.Millisecond)})
	began = time.Now()
	send("on a slow disk")
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("on a disk slower by 200 ms it took %s", took)
	}
	inject(admin.Fault{Kind: admin.FaultClear})

	for _, kind := range []string{admin.FaultDetach, admin.FaultClose, admin.FaultCut, admin.FaultExpireTokens} {
		inject(admin.Fault{Kind: kind, Hub: "events"})
		send("after " + kind)
	}
	if p, err := b.Admin().Partitions(ctx, "events"); err != nil || p[0].Last+1 != sent {
		t.Errorf("%d events are stored, not %d, %v", p[0].Last+1, sent, err)
	}
	stolen(t, ctx, b, inject)
	if text := b.Log(); strings.Contains(text, "panic") {
		t.Error(text)
	}
}

// stolen has a partition be taken from its owner.
func stolen(t *testing.T, ctx context.Context, b *Broker, inject func(admin.Fault)) {
	t.Helper()
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, "events", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(c)
	level := int64(3)
	r, err := c.NewPartitionClient("0", &eventhubs.PartitionClientOptions{OwnerLevel: &level})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(r)
	lost := make(chan error, 1)
	go func() {
		_, err := r.ReceiveEvents(ctx, 1, nil)
		lost <- err
	}()
	for { // until it is seated
		seats, err := b.Admin().Receivers(ctx, "events")
		if err != nil {
			t.Fatal(err)
		}
		if len(seats) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	inject(admin.Fault{Kind: admin.FaultSteal, Hub: "events", Partition: "0"})
	var e *eventhubs.Error
	if err := <-lost; !errors.As(err, &e) || e.Code != eventhubs.ErrorCodeOwnershipLost {
		t.Errorf("a receiver whose partition is stolen is told: %v", err)
	}
}

// TestFaultsAreOff: without the flag nobody can break anything.
func TestFaultsAreOff(t *testing.T) {
	b := Start(t)
	_, err := b.Admin().Inject(t.Context(), admin.Fault{Kind: admin.FaultCut})
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Status != 403 || !strings.Contains(refused.Message, "--allow-faults") {
		t.Error(err)
	}
}
