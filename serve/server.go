// Package serve answers over HTTP whether images are in-distribution: the Open
// Inference Protocol v2 as KServe's and Triton's clients speak it, a plain POST of an
// image, and CloudEvents; with metrics, a drift test and a page to look at. See the
// OpenAPI description in openapi.json, which the server also gives out.
package serve

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"nac"
	"nac/drift"
)

// Source is a detector to serve.
type Source struct {
	// Name is what clients call it.
	Name string
	// Path is a file that is looked at for changes; empty for none.
	Path string
	// Open loads the detector with its model. It is called again after a change.
	Open func() (*nac.Detector, error)
}

// Options of a Server. What is zero gets the default in brackets.
type Options struct {
	MaxBatch  int           // images run together, at most 64 [64]
	MaxDelay  time.Duration // the longest wait for other images, if not a quarter of the last run [2ms]
	MaxQueue  int           // images waiting or running; more are refused with 429 [256]
	MaxBody   int64         // bytes of a request [32 MiB]
	MaxMemory int64         // bytes of all requests being read or waiting [512 MiB]
	MaxPixels int           // of an image [50 million]
	MaxConns  int           // connections at a time [1024]
	Timeout   time.Duration // for reading a request, and for answering it [30s]
	Drain     time.Duration // for requests that run when the server is told to end [30s]
	Reload    time.Duration // between looks at the detectors' files [1s]
	// APIKey must come with every request but those for health, if it is not empty: as
	// "Authorization: Bearer KEY" or "X-API-Key: KEY".
	APIKey string
	// CertFile and KeyFile switch on TLS.
	CertFile, KeyFile string
	// Drift is how scores are watched. Store is the file that keeps the state across
	// restarts, written once a second; empty for none.
	Drift drift.Settings
	Store string
	// Thumbnails keeps small pictures of the worst recent images, in memory alone.
	Thumbnails bool
	Log        *slog.Logger // [discarded]
}

func (o *Options) defaults() error {
	set := func(v *int, def int) { *v = max(*v, 0); *v += def * b2i(*v == 0) }
	set(&o.MaxBatch, 64)
	set(&o.MaxQueue, 256)
	set(&o.MaxPixels, 50_000_000)
	set(&o.MaxConns, 1024)
	wait := func(v *time.Duration, def time.Duration) {
		if *v <= 0 {
			*v = def
		}
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = 2 * time.Millisecond
	}
	wait(&o.Timeout, 30*time.Second)
	wait(&o.Drain, 30*time.Second)
	wait(&o.Reload, time.Second)
	if o.MaxBody <= 0 {
		o.MaxBody = 32 << 20
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 512 << 20
	}
	if o.MaxBatch > 64 {
		return fmt.Errorf("serve: batches of %d images; at most 64 are run together", o.MaxBatch)
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("serve: TLS needs both a certificate and a key")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o.Drift.Defaults()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Server serves detectors.
type Server struct {
	options   Options
	log       *slog.Logger
	names     []string
	detectors map[string]*served
	metrics   *metrics
	store     *drift.Store
	decoding  chan struct{}
	images    atomic.Int64 // admitted
	memory    atomic.Int64 // of bodies
	key       [sha256.Size]byte
	draining  atomic.Bool
	lastInfer atomic.Pointer[lastInfer]
	handler   http.Handler
	stop      context.CancelFunc
	watchers  sync.WaitGroup
}

// New loads all detectors. Close ends the server.
func New(sources []Source, o Options) (s *Server, err error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		return nil, errors.New("serve: no detectors")
	}
	s = &Server{
		options: o, log: o.Log, detectors: map[string]*served{}, metrics: newMetrics(),
		decoding: make(chan struct{}, runtime.GOMAXPROCS(0)), key: sha256.Sum256([]byte(o.APIKey)),
	}
	if o.Store != "" {
		if s.store, err = drift.OpenStore(o.Store); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				s.store.Close()
			}
		}()
	}
	for _, source := range sources {
		if source.Name == "" || strings.ContainsAny(source.Name, "/?#%") {
			return nil, fmt.Errorf("serve: %q cannot be a detector's name", source.Name)
		}
		if s.detectors[source.Name] != nil {
			return nil, fmt.Errorf("serve: two detectors are called %s", source.Name)
		}
		d := &served{name: source.Name, source: source, server: s, images: s.metrics.of(source.Name)}
		if d.stamp, err = stampOf(source.Path); err != nil {
			return nil, fmt.Errorf("serve: %w", err)
		}
		if err := d.load(); err != nil {
			return nil, fmt.Errorf("serve: %s: %w", source.Name, err)
		}
		s.names = append(s.names, source.Name)
		s.detectors[source.Name] = d
	}
	s.metrics.registry.MustRegister(driftCollector{s})
	s.handler = s.routes()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.watchers.Go(func() { every(ctx, o.Reload, func() { s.reload() }) })
	s.watchers.Go(func() { every(ctx, time.Second, s.save) })
	return s, nil
}

func every(ctx context.Context, d time.Duration, do func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			do()
		}
	}
}

func (s *Server) reload() {
	for _, name := range s.names {
		if d := s.detectors[name]; d.source.Path != "" {
			d.reload()
		}
	}
}

// Close stores what was seen. No request may be running.
func (s *Server) Close() error {
	s.stop()
	s.watchers.Wait()
	s.save()
	for _, d := range s.detectors {
		d.current.retire()
	}
	if s.store != nil {
		return s.store.Close()
	}
	return nil
}

// Serve answers requests until the context ends, then lets those that run come to
// their end, and closes the listener. Health checks say "not ready" meanwhile.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: min(s.options.Timeout, 10*time.Second), ReadTimeout: s.options.Timeout,
		WriteTimeout: 2*s.options.Timeout + time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	l = netutil.LimitListener(l, s.options.MaxConns)
	ended := make(chan error, 1)
	go func() {
		if s.options.CertFile != "" {
			ended <- h.ServeTLS(l, s.options.CertFile, s.options.KeyFile)
		} else {
			ended <- h.Serve(l)
		}
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.log.Info("draining")
	drain, cancel := context.WithTimeout(context.Background(), s.options.Drain)
	defer cancel()
	if err := h.Shutdown(drain); err != nil {
		h.Close()
		return fmt.Errorf("serve: requests still ran after %v: %w", s.options.Drain, err)
	}
	return nil
}

// Handler answers requests, for use within another server.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	open := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, s.wrap(pattern, h))
	}
	guarded := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		open(pattern, func(w http.ResponseWriter, r *http.Request) error {
			if !s.allowed(r) {
				w.Header().Set("WWW-Authenticate", "Bearer")
				return failf(http.StatusUnauthorized, "the API key is missing or wrong")
			}
			return h(w, r)
		})
	}
	open("GET /v2/health/live", s.live)
	open("GET /v2/health/ready", s.ready)
	guarded("GET /v2", s.serverMetadata)
	guarded("GET /v2/{$}", s.serverMetadata)
	for _, model := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		guarded("GET "+model, s.modelMetadata)
		guarded("GET "+model+"/ready", s.modelReady)
		guarded("POST "+model+"/infer", s.infer)
	}
	guarded("POST /score", s.score)
	guarded("POST /score/{model}", s.score)
	guarded("GET /detectors", s.list)
	guarded("GET /drift", s.drift)
	guarded("GET /openapi.json", s.openAPI)
	metrics := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	guarded("GET /metrics", func(w http.ResponseWriter, r *http.Request) error {
		metrics.ServeHTTP(w, r)
		return nil
	})
	open("GET /{$}", s.page) // holds no data
	return mux
}

func (s *Server) allowed(r *http.Request) bool {
	if s.options.APIKey == "" {
		return true
	}
	key := r.Header.Get("X-API-Key")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		key = bearer
	}
	given := sha256.Sum256([]byte(key)) // of one length, so that time tells nothing
	return subtle.ConstantTimeCompare(given[:], s.key[:]) == 1
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// wrap turns errors into answers, and measures and logs requests: never what they hold.
func (s *Server) wrap(route string, h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w := &statusWriter{ResponseWriter: rw}
		err := h(w, r)
		if err != nil {
			status := statusOf(err)
			if status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "1")
				s.metrics.refused.Inc()
			}
			writeJSON(w, status, map[string]string{"error": err.Error()})
		}
		took := time.Since(start)
		s.metrics.requests.WithLabelValues(route, strconv.Itoa(w.status)).Observe(took.Seconds())
		level := slog.LevelDebug
		if w.status >= 500 {
			level = slog.LevelError
		}
		if !s.log.Enabled(r.Context(), level) {
			return // it would cost memory
		}
		s.log.Log(r.Context(), level, "request", "route", route, "status", w.status, "ms", float64(took.Microseconds())/1000, "bytes", r.ContentLength, "error", err)
	}
}

func statusOf(err error) int {
	var f failure
	var large *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &f):
		return f.status
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	case errors.Is(err, context.Canceled):
		return 499 // the client has gone; nobody reads this but the log
	case errors.As(err, &timeout) && timeout.Timeout():
		return http.StatusRequestTimeout
	}
	return http.StatusInternalServerError
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// bodies keeps the memory of requests for the next ones, that of large ones excepted.
var bodies sync.Pool

const mostKept = 1 << 20

// roomFor is an empty slice for a body of a length, which is negative if it is unknown.
func roomFor(length int64) *[]byte {
	need := max(512, length+1) // to see its end without growing
	if kept, ok := bodies.Get().(*[]byte); ok && int64(cap(*kept)) >= need {
		return kept
	}
	buf := make([]byte, 0, need)
	return &buf
}

// readBody reads a request, within the limits. release gives its memory back, and the
// body must not be used after it.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, nil, failf(http.StatusUnsupportedMediaType, "a content encoding of %q; send the body as it is", e)
	}
	size := r.ContentLength
	if size > s.options.MaxBody {
		return nil, nil, failf(http.StatusRequestEntityTooLarge, "a body of %d bytes; at most %d are read", size, s.options.MaxBody)
	}
	if size < 0 {
		size = s.options.MaxBody
	}
	if s.memory.Add(size) > s.options.MaxMemory {
		s.memory.Add(-size)
		return nil, nil, failf(http.StatusTooManyRequests, "too much is being read already")
	}
	room := roomFor(r.ContentLength)
	buf := *room
	release = func() {
		s.memory.Add(-size)
		if cap(buf) <= mostKept {
			*room = buf[:0]
			bodies.Put(room)
		}
	}
	in := http.MaxBytesReader(w, r.Body, s.options.MaxBody)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			if err == io.EOF {
				return buf, release, nil
			}
			release()
			if status := statusOf(err); status == http.StatusRequestTimeout || status == http.StatusServiceUnavailable {
				err = failf(http.StatusRequestTimeout, "the request came too slowly: less than all of it within %v", s.options.Timeout)
			} else if status == http.StatusInternalServerError {
				err = failure{http.StatusBadRequest, fmt.Errorf("reading the request: %w", err)}
			}
			return nil, nil, err
		}
	}
}

// admit takes places for n images; leave gives them back.
func (s *Server) admit(n int) (leave func(), err error) {
	if n > s.options.MaxQueue {
		return nil, failf(http.StatusRequestEntityTooLarge, "%d images in one request; at most %d", n, s.options.MaxQueue)
	}
	if s.images.Add(int64(n)) > int64(s.options.MaxQueue) {
		s.images.Add(int64(-n))
		return nil, failf(http.StatusTooManyRequests, "the server is busy")
	}
	return func() { s.images.Add(int64(-n)) }, nil
}

// detector finds the one that a request names; without a name it is the first.
func (s *Server) detector(r *http.Request) (*served, error) {
	name := r.PathValue("model")
	if name == "" {
		name = s.names[0]
	}
	d := s.detectors[name]
	if d == nil {
		return nil, failf(http.StatusNotFound, "no detector is called %q", name)
	}
	if v := r.PathValue("version"); v != "" && v != modelVersion {
		return nil, failf(http.StatusNotFound, "%s has no version %q, only %s", name, v, modelVersion)
	}
	return d, nil
}
