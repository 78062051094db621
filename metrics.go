package millrace

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/hub"
)

// The names are the service's, in Prometheus's spelling. Source: features.md
// section 12; Azure Monitor's metrics of Microsoft.EventHub/namespaces.
var (
	hubLabels       = []string{"namespace", "hub"}
	namespaceLabels = []string{"namespace"}
	partitionLabels = []string{"namespace", "hub", "partition"}

	incomingRequests  = describeMetric("incoming_requests_total", "Requests to store events, batches counted once.", hubLabels)
	incomingMessages  = describeMetric("incoming_messages_total", "Events stored.", hubLabels)
	incomingBytes     = describeMetric("incoming_bytes_total", "Bytes of events stored.", hubLabels)
	outgoingRequests  = describeMetric("outgoing_requests_total", "Requests that events were delivered to.", hubLabels)
	outgoingMessages  = describeMetric("outgoing_messages_total", "Events delivered.", hubLabels)
	outgoingBytes     = describeMetric("outgoing_bytes_total", "Bytes of events delivered.", hubLabels)
	capturedMessages  = describeMetric("captured_messages_total", "Events in captured files.", hubLabels)
	capturedBytes     = describeMetric("captured_bytes_total", "Bytes of captured files.", hubLabels)
	capturedFiles     = describeMetric("captured_files_total", "Captured files.", hubLabels)
	captureErrors     = describeMetric("capture_errors_total", "Attempts to write captured files that failed.", hubLabels)
	captureLost       = describeMetric("capture_lost_messages_total", "Events that retention removed before they were captured.", hubLabels)
	captureBacklog    = describeMetric("capture_backlog_messages", "Events stored and in no captured file yet.", hubLabels)
	size              = describeMetric("size_bytes", "Bytes on disk of the events retained.", hubLabels)
	activeConnections = describeMetric("active_connections", "Connections that are open.", namespaceLabels)
	connectionsOpened = describeMetric("connections_opened_total", "Connections opened.", namespaceLabels)
	connectionsClosed = describeMetric("connections_closed_total", "Connections closed.", namespaceLabels)
	capacity          = describeMetric("capacity_units", "Units of the namespace's tier: throughput units, for one.", append(namespaceLabels, "tier"))
	inflations        = describeMetric("auto_inflations_total", "Steps of auto-inflate.", namespaceLabels)
	firstSequence     = describeMetric("partition_first_sequence_number", "Sequence number of the oldest event retained.", partitionLabels)
	lastSequence      = describeMetric("partition_last_sequence_number", "Sequence number of the newest event, -1 if there never was one.", partitionLabels)
	partitionSize     = describeMetric("partition_size_bytes", "Bytes on disk of the events retained.", partitionLabels)
	unreadable        = describeMetric("partition_unreadable", "1 for a partition that can't be opened; the log says why.", partitionLabels)
	storageFull       = describeMetric("storage_full", "1 while events are refused for want of disk space.", nil)
	diskFree          = describeMetric("disk_free_bytes", "Free space on the disk of the data folder.", nil)
	diskSize          = describeMetric("disk_size_bytes", "Size of the disk of the data folder.", nil)
	startTime         = describeMetric("start_time_seconds", "When the broker started, in Unix time.", nil)
	buildInfo         = describeMetric("build_info", "1, with what the broker was built from.", []string{"version", "goversion"})

	// endedRequests has, for each result, the service's metric.
	endedRequests = map[hub.Result]*prometheus.Desc{
		hub.Success:             describeMetric("successful_requests_total", "Requests that succeeded.", append(hubLabels, "result")),
		hub.ClientError:         describeMetric("user_errors_total", "Requests refused for what they asked.", append(hubLabels, "result")),
		hub.ServerBusy:          describeMetric("throttled_requests_total", "Requests refused for now.", append(hubLabels, "result")),
		hub.QuotaExceededResult: describeMetric("quota_exceeded_errors_total", "Requests refused by a limit.", append(hubLabels, "result")),
		hub.ServerError:         describeMetric("server_errors_total", "Requests that the broker failed.", append(hubLabels, "result")),
	}
)

func describeMetric(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("millrace_"+name, help, labels, nil)
}

// metrics serves the figures. The registry is made when first asked, since most
// development brokers never are.
func (b *Broker) metrics() http.Handler {
	handler := sync.OnceValue(func() http.Handler {
		r := prometheus.NewRegistry()
		r.MustRegister(collector{b}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler().ServeHTTP(w, r) })
}

// collector reads the broker's counters when it is scraped.
type collector struct{ b *Broker }

// Describe implements prometheus.Collector. It sends nothing: what there is
// depends on the hubs.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), httpTimeout)
	defer cancel()
	for _, ns := range c.b.hubs.All() {
		m := &ns.Metrics
		gauge(to, activeConnections, float64(m.ActiveConnections.Load()), ns.Name)
		counter(to, connectionsOpened, m.ConnectionsOpened.Load(), ns.Name)
		counter(to, connectionsClosed, m.ConnectionsClosed.Load(), ns.Name)
		s := ns.Settings()
		gauge(to, capacity, float64(s.Capacity), ns.Name, string(s.Tier))
		counter(to, inflations, m.Inflations.Load(), ns.Name)
		for _, h := range ns.EventHubs() {
			c.collectHub(ctx, to, ns, h)
		}
	}
	full := 0.0
	if c.b.store.Full() {
		full = 1
	}
	gauge(to, storageFull, full)
	if free, total := freeSpace(c.b.dir); total > 0 {
		gauge(to, diskFree, float64(free))
		gauge(to, diskSize, float64(total))
	}
	gauge(to, startTime, float64(c.b.started.UnixMilli())/1e3)
	gauge(to, buildInfo, 1, c.b.o.Version, runtime.Version())
}

func (c collector) collectHub(ctx context.Context, to chan<- prometheus.Metric, ns *hub.Namespace, h *hub.EventHub) {
	m := &h.Metrics
	counter(to, incomingRequests, m.IncomingRequests.Load(), ns.Name, h.Name)
	counter(to, incomingMessages, m.IncomingMessages.Load(), ns.Name, h.Name)
	counter(to, incomingBytes, m.IncomingBytes.Load(), ns.Name, h.Name)
	counter(to, outgoingRequests, m.OutgoingRequests.Load(), ns.Name, h.Name)
	counter(to, outgoingMessages, m.OutgoingMessages.Load(), ns.Name, h.Name)
	counter(to, outgoingBytes, m.OutgoingBytes.Load(), ns.Name, h.Name)
	if h.Settings().Capture != nil {
		counter(to, capturedMessages, m.CapturedMessages.Load(), ns.Name, h.Name)
		counter(to, capturedBytes, m.CapturedBytes.Load(), ns.Name, h.Name)
		counter(to, capturedFiles, m.CapturedFiles.Load(), ns.Name, h.Name)
		counter(to, captureErrors, m.CaptureErrors.Load(), ns.Name, h.Name)
		counter(to, captureLost, m.CaptureLost.Load(), ns.Name, h.Name)
		gauge(to, captureBacklog, float64(c.b.capture.Backlog(ctx, h)), ns.Name, h.Name)
	}
	for _, r := range hub.Results() {
		counter(to, endedRequests[r], m.Requests[r].Load(), ns.Name, h.Name, r.String())
	}
	sum := int64(0)
	for i := range h.Partitions() {
		id := strconv.Itoa(i)
		info, err := h.At(i).Info(ctx)
		if err != nil {
			gauge(to, unreadable, 1, ns.Name, h.Name, id)
			continue
		}
		sum += info.Bytes
		gauge(to, firstSequence, float64(info.First), ns.Name, h.Name, id)
		gauge(to, lastSequence, float64(info.Last()), ns.Name, h.Name, id)
		gauge(to, partitionSize, float64(info.Bytes), ns.Name, h.Name, id)
	}
	gauge(to, size, float64(sum), ns.Name, h.Name)
}

func gauge(to chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(to chan<- prometheus.Metric, d *prometheus.Desc, v int64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}
