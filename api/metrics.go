package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"redoubt"
)

var (
	infoDesc     = prometheus.NewDesc("redoubt_node_info", "What the node is; always 1.", []string{"node", "kind", "policy", "version", "fips"}, nil)
	bytesDesc    = prometheus.NewDesc("redoubt_label_bytes", "Bytes of content stored at a label.", []string{"label"}, nil)
	versionsDesc = prometheus.NewDesc("redoubt_label_versions", "Versions stored at a label.", []string{"label"}, nil)
	chargedDesc  = prometheus.NewDesc("redoubt_label_charged_bytes", "Bytes charged to a label's share: content, records and names of what was made at it.", []string{"label"}, nil)
	quotaDesc    = prometheus.NewDesc("redoubt_label_quota_bytes", "The share of a label; absent where it has none.", []string{"label"}, nil)
)

// metrics is the Prometheus text of what the credential dominates (RULES 3.4). Every scrape has a registry of its
// own, so that nothing of one credential's view can be left in another's. No series names a bucket, a key or a person; those of services name them.
// What counts the node as a whole, its memory and processor time too, tells of work at every label: it
// shows to who dominates the ceiling alone.
func (s *server) metrics(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	usage, err := s.Maintenance.Usage(r.Context(), who) // decides, as ActionReadMetrics
	if err != nil {
		return err
	}
	all := prometheus.NewRegistry()
	seen := []prometheus.Collector{view{s.Maintenance.NodeInfo(r.Context()), usage}}
	if who.Working.Dominates(s.Ceiling) {
		seen = append(seen, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		seen = append(seen, s.NodeWide...)
	}
	if s.Services != nil {
		services, err := s.Services.Services(r.Context(), who)
		if k := redoubt.KindOf(err); err != nil && k != redoubt.Denied {
			return err
		}
		for i := range services {
			services[i] = s.running(services[i], who)
		}
		seen = append(seen, servicesView(services))
	}
	for _, c := range seen {
		if err := all.Register(c); err != nil {
			return err
		}
	}
	promhttp.HandlerFor(all, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP(w, r)
	return nil
}

// view is what one credential sees, as a collector.
type view struct {
	node  redoubt.NodeInfo
	usage []redoubt.LabelUsage
}

func (v view) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{infoDesc, bytesDesc, versionsDesc, chargedDesc, quotaDesc} {
		ch <- d
	}
}

func (v view) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	fips := "off"
	if v.node.FIPS {
		fips = "on"
	}
	gauge(infoDesc, 1, string(v.node.Name), v.node.Kind, v.node.Policy, v.node.Version, fips)
	for _, u := range v.usage {
		gauge(bytesDesc, float64(u.Bytes), u.Label)
		gauge(versionsDesc, float64(u.Versions), u.Label)
		gauge(chargedDesc, float64(u.ChargedBytes), u.Label)
		if u.QuotaBytes > 0 {
			gauge(quotaDesc, float64(u.QuotaBytes), u.Label)
		}
	}
}

var (
	requestsDesc = prometheus.NewDesc("redoubt_service_requests_total", "Requests to a service that were answered at a label, since the node started.", []string{"service", "of", "label"}, nil)
	failedDesc   = prometheus.NewDesc("redoubt_service_failed_total", "Those of them that the service did not answer.", []string{"service", "of", "label"}, nil)
	runningDesc  = prometheus.NewDesc("redoubt_service_instances", "Instances of a service that run for a label.", []string{"service", "of", "label"}, nil)
)

// servicesView is what one credential sees of services, as a collector.
type servicesView []redoubt.Service

func (v servicesView) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, failedDesc, runningDesc} {
		ch <- d
	}
}

func (v servicesView) Collect(ch chan<- prometheus.Metric) {
	for _, s := range v {
		for _, i := range s.Instances {
			of := []string{string(s.Name), s.Label, i.Label}
			ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(i.Requests), of...)
			ch <- prometheus.MustNewConstMetric(failedDesc, prometheus.CounterValue, float64(i.Failed), of...)
			ch <- prometheus.MustNewConstMetric(runningDesc, prometheus.GaugeValue, float64(i.Running), of...)
		}
	}
}
