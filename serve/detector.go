package serve

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"nac"
	"nac/drift"
	"nac/imageset"
)

// served is a detector under a name: the version in use, and what it saw.
type served struct {
	name    string
	source  Source
	server  *Server
	stamp   stamp // of the file, when last looked at
	mu      sync.RWMutex
	current *version

	images imageMetrics

	tidied time.Time // when deleted files were dropped from the store

	watch sync.Mutex
	// all below is guarded by watch
	monitor *drift.Monitor
	key     string // of the monitor's state in the store
	dirty   bool
	stored  int64             // images of the state in the store
	files   map[string]string // versions by path, scored or given up, not in the store yet
	worst   []seen
	ood     int64
}

// version is a loaded detector file. It is retired once nothing uses it.
type version struct {
	detector *nac.Detector
	info     nac.Info
	hash     string // of the calibration, in short
	batcher  *batcher
	users    sync.WaitGroup
}

// seen is an image of the list of the least in-distribution ones.
type seen struct {
	Time  time.Time `json:"time"`
	Image int64     `json:"image"`
	// File is the path of an image of a watched folder.
	File   string     `json:"file,omitempty"`
	Result nac.Result `json:"result"`
	// Thumbnail is a PNG, only if thumbnails are switched on.
	Thumbnail []byte `json:"thumbnail,omitempty"`
}

// mostSeen is the length of that list.
const mostSeen = 12

// stamp tells a changed file from one that is the same.
type stamp struct {
	size int64
	time time.Time
}

func stampOf(path string) (stamp, error) {
	if path == "" {
		return stamp{}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.Size(), info.ModTime()}, nil
}

// load reads the detector and puts it in the place of the current version.
func (d *served) load() error {
	detector, err := d.source.Open()
	if err != nil {
		return err
	}
	info := detector.Info()
	in := info.Model.Input
	scores := detector.CalibrationScores()
	o := &d.server.options
	v := &version{detector: detector, info: info}
	sum := sha256.New()
	for _, s := range scores {
		sum.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(s)))
	}
	v.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	key := d.name + "@" + v.hash

	d.watch.Lock()
	if key != d.key {
		// Another calibration: its scores cannot be compared with those seen before.
		m, err := drift.New(scores, o.Drift)
		if err != nil {
			d.watch.Unlock()
			return err
		}
		if d.server.store != nil {
			state, ok, err := d.server.store.Load(key)
			if err == nil && ok {
				err = m.Resume(state)
			}
			if err != nil {
				d.watch.Unlock()
				return err
			}
			d.stored = state.Images
		}
		d.monitor, d.key, d.dirty, d.worst, d.ood, d.files = m, key, false, nil, 0, map[string]string{}
	}
	d.watch.Unlock()

	m := d.server.metrics
	v.batcher = newBatcher(detector, in[0]*in[1]*in[2], o.MaxBatch, o.MaxQueue, o.MaxDelay, func(n int, took time.Duration) {
		m.batch.WithLabelValues(d.name).Observe(float64(n))
		m.run.WithLabelValues(d.name).Observe(took.Seconds())
	})
	d.mu.Lock()
	old := d.current
	d.current = v
	d.mu.Unlock()
	if old != nil {
		go old.retire()
	}
	return nil
}

func (v *version) retire() {
	v.users.Wait()
	v.batcher.close()
}

// use returns the current version, which stays until v.users.Done.
func (d *served) use() *version {
	d.mu.RLock()
	defer d.mu.RUnlock()
	d.current.users.Add(1)
	return d.current
}

// reload loads the file if it has changed. A file that cannot be read changes nothing.
func (d *served) reload() {
	now, err := stampOf(d.source.Path)
	if err == nil && now == d.stamp {
		return
	}
	if err == nil {
		d.stamp = now
		err = d.load()
	}
	result := "loaded"
	if err != nil {
		if errors.Is(err, os.ErrNotExist) && d.stamp == (stamp{}) {
			return // told already
		}
		if errors.Is(err, os.ErrNotExist) {
			d.stamp = stamp{}
		}
		result = "refused"
		d.server.log.Error("detector file changed and was refused; the former one stays in use", "detector", d.name, "error", err)
	} else {
		d.server.log.Info("detector file changed and was loaded", "detector", d.name)
	}
	d.server.metrics.reloads.WithLabelValues(d.name, result).Inc()
}

// scoreImage scores an encoded image, of a watched folder or, if from is nil, of a request.
func (d *served) scoreImage(ctx context.Context, v *version, data []byte, from *file) (nac.Result, error) {
	arrived := v.batcher.announce()
	defer arrived()
	img := pictures.Get().(*imageset.Image)
	defer func() {
		if cap(img.Pix) <= mostKept {
			pictures.Put(img)
		}
	}()
	c := v.batcher.call()
	if from == nil {
		c.hurry(d.server.options.Timeout)
	}
	if err := d.decode(ctx, v, data, from, img, c); err != nil {
		v.batcher.forget(c)
		return nac.Result{}, err
	}
	r, err := v.batcher.score(ctx, c, arrived)
	if err != nil {
		return r, err
	}
	d.saw(v, r, img, from)
	return r, nil
}

// pictures keeps the memory of decoded images for the next ones, that of large ones excepted.
var pictures = sync.Pool{New: func() any { return new(imageset.Image) }}

// decode decodes an image into img, and writes it transformed into the call.
func (d *served) decode(ctx context.Context, v *version, data []byte, from *file, img *imageset.Image, c *call) error {
	if err := put(ctx, d.server.decoding, struct{}{}, c); err != nil {
		return err
	}
	defer func() { <-d.server.decoding }()
	name := "image"
	if from != nil {
		name = from.path
	}
	err := img.Decode(name, data, d.server.options.MaxPixels)
	if err == nil {
		err = v.info.Transform.Apply(img, c.input)
	}
	if errors.Is(err, imageset.ErrTooLarge) {
		return failure{413, err}
	}
	if err != nil {
		return failure{422, err}
	}
	return nil
}

// scoreTensor scores an image that is transformed already.
func (d *served) scoreTensor(ctx context.Context, v *version, c *call) (nac.Result, error) {
	c.hurry(d.server.options.Timeout)
	r, err := v.batcher.score(ctx, c, func() {})
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			err = failure{422, err}
		}
		return r, err
	}
	d.saw(v, r, nil, nil)
	return r, nil
}

// saw notes a result. img and from may be nil.
func (d *served) saw(v *version, r nac.Result, img *imageset.Image, from *file) {
	d.images.score.Observe(r.Score)
	d.images.pValue.Observe(r.PValue)
	d.images.verdicts[b2i(r.OOD)].Inc()

	d.watch.Lock()
	defer d.watch.Unlock()
	if d.key != d.name+"@"+v.hash {
		return // scored by a version that has just been replaced
	}
	alarm, err := d.monitor.Add(r.Score)
	if err != nil {
		d.server.log.Warn("score not watched", "detector", d.name, "error", err)
		return
	}
	d.dirty = true
	one := seen{Time: time.Now().UTC().Truncate(time.Second), Image: d.monitor.Images(), Result: r}
	if from != nil {
		d.files[from.path] = from.version
		one.File = from.path
	}
	if r.OOD {
		d.ood++
	}
	if alarm {
		d.server.metrics.alarms.WithLabelValues(d.name).Inc()
		d.server.log.Warn("the scores have drifted from those of the calibration images", "detector", d.name, "image", one.Image)
	}
	d.remember(one, img)
}

// remember keeps the worst images among the last window of them.
func (d *served) remember(one seen, img *imageset.Image) {
	recent := one.Image - int64(d.server.options.Drift.Window)
	d.worst = slices.DeleteFunc(d.worst, func(s seen) bool { return s.Image <= recent })
	at, _ := slices.BinarySearchFunc(d.worst, one.Result.Score, func(s seen, score float64) int {
		if s.Result.Score <= score {
			return -1
		}
		return 1
	})
	if at == mostSeen {
		return
	}
	if d.server.options.Thumbnails && img != nil {
		one.Thumbnail = thumbnail(img)
	}
	d.worst = slices.Insert(d.worst, at, one)
	d.worst = d.worst[:min(len(d.worst), mostSeen)]
}

// driftReport is what GET /drift says of a detector.
type driftReport struct {
	Detector string `json:"detector"`
	drift.Report
	// Threshold is the least score that is called ID.
	Threshold float64 `json:"threshold"`
	// OOD counts verdicts since the start.
	OOD int64 `json:"ood"`
	// Stored is the number of images that the state on disk has seen.
	Stored int64  `json:"stored"`
	Worst  []seen `json:"worst"`
}

func (d *served) report() driftReport {
	v := d.use()
	defer v.users.Done()
	d.watch.Lock()
	defer d.watch.Unlock()
	return driftReport{d.name, d.monitor.Report(), v.info.Threshold.Score, d.ood, d.stored, slices.Clone(d.worst)}
}

// save writes the states of all monitors that have changed.
func (s *Server) save() {
	if s.store == nil {
		return
	}
	states, files := map[string]drift.State{}, map[string]map[string]string{}
	for _, d := range s.detectors {
		d.watch.Lock()
		if d.dirty {
			states[d.key] = d.monitor.State()
			if len(d.files) > 0 {
				files[d.key] = maps.Clone(d.files)
			}
			d.dirty = false
		}
		d.watch.Unlock()
	}
	if len(states) == 0 {
		return
	}
	err := s.store.Save(states, files)
	for _, d := range s.detectors {
		d.watch.Lock()
		if state, ok := states[d.key]; ok {
			if err != nil {
				d.dirty = true
			} else {
				d.stored = state.Images
				maps.DeleteFunc(d.files, func(path, version string) bool { return files[d.key][path] == version })
			}
		}
		d.watch.Unlock()
	}
	if err != nil {
		s.log.Error("drift state not stored", "error", err)
	}
}

// failure is an error with its HTTP status.
type failure struct {
	status int
	error
}

func (f failure) Unwrap() error { return f.error }

func failf(status int, format string, args ...any) error {
	return failure{status, fmt.Errorf(format, args...)}
}
