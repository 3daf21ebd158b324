package serve

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are Prometheus's, in a registry of their own so that several servers may
// live in one process.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec // route, code
	batch    *prometheus.HistogramVec // detector
	run      *prometheus.HistogramVec // detector
	score    *prometheus.HistogramVec // detector
	pValue   *prometheus.HistogramVec // detector
	verdicts *prometheus.CounterVec   // detector, verdict
	alarms   *prometheus.CounterVec   // detector
	reloads  *prometheus.CounterVec   // detector, result
	refused  prometheus.Counter
}

// scoreBuckets are fixed, so that servers and versions can be compared: scores of
// coverage lie between 0 and 1, others are told apart by their p-value's histogram.
var scoreBuckets = prometheus.LinearBuckets(0.05, 0.05, 20)

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	times := prometheus.ExponentialBuckets(0.0005, 2, 16)
	m.requests = histogram("nac_request_seconds", "Time to answer a request.", times, "route", "code")
	m.batch = histogram("nac_batch_images", "Images run together.", []float64{1, 2, 4, 8, 16, 32, 64}, "detector")
	m.run = histogram("nac_batch_seconds", "Time of a run of the network.", times, "detector")
	m.score = histogram("nac_score", "Scores; higher is more in-distribution.", scoreBuckets, "detector")
	m.pValue = histogram("nac_p_value", "Conformal p-values; uniform for in-distribution images.", prometheus.LinearBuckets(0.05, 0.05, 20), "detector")
	m.verdicts = counter("nac_verdicts_total", "Images by verdict.", "detector", "verdict")
	m.alarms = counter("nac_drift_alarms_total", "Alarms of the sequential drift test since the start of the process.", "detector")
	m.reloads = counter("nac_reloads_total", "Changed detector files that were loaded or refused.", "detector", "result")
	m.refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "nac_refused_total", Help: "Requests refused because the server was busy (429)."})
	m.registry.MustRegister(m.refused, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// imageMetrics are those that each image of a detector changes.
type imageMetrics struct {
	score, pValue prometheus.Observer
	verdicts      [2]prometheus.Counter // ID, OOD
}

func (m *metrics) of(detector string) imageMetrics {
	return imageMetrics{
		m.score.WithLabelValues(detector), m.pValue.WithLabelValues(detector),
		[2]prometheus.Counter{m.verdicts.WithLabelValues(detector, "id"), m.verdicts.WithLabelValues(detector, "ood")},
	}
}

// driftCollector reads the drift statistics when they are asked for.
type driftCollector struct{ s *Server }

var (
	statisticDesc = prometheus.NewDesc("nac_drift_statistic", "Statistic of the sequential drift test; an alarm is raised at nac_drift_limit.", []string{"detector"}, nil)
	limitDesc     = prometheus.NewDesc("nac_drift_limit", "Least mean number of images between false alarms, and the statistic's limit.", []string{"detector"}, nil)
	ksDesc        = prometheus.NewDesc("nac_drift_ks", "Kolmogorov-Smirnov distance of the last scores from the calibration scores.", []string{"detector"}, nil)
	ksPDesc       = prometheus.NewDesc("nac_drift_ks_p_value", "Its p-value.", []string{"detector"}, nil)
	activeDesc    = prometheus.NewDesc("nac_drift_active", "1 for a window of images after an alarm.", []string{"detector"}, nil)
)

func (c driftCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{statisticDesc, limitDesc, ksDesc, ksPDesc, activeDesc} {
		ch <- d
	}
}

func (c driftCollector) Collect(ch chan<- prometheus.Metric) {
	for _, name := range c.s.names {
		r := c.s.detectors[name].report().Report
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
		}
		active := 0.0
		if r.Drift {
			active = 1
		}
		gauge(statisticDesc, r.Statistic)
		gauge(limitDesc, r.RunLength)
		gauge(ksDesc, r.KS)
		gauge(ksPDesc, r.KSP)
		gauge(activeDesc, active)
	}
}
