// Command ours is nac's side of bench/peer: it does one job again and again and
// speaks the protocol of peer.py.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"nac/arch"
	"nac/coverage"
	"nac/internal/kernel"
	"nac/weights"
)

type options struct {
	path, arch, weights, images, layers, kernel, states string
	batch, threads, channels, m, o                      int
	alpha                                               float64
}

// job is what is measured: run does items of it.
type job struct {
	run   func() error
	items int
	check [][]float64
	isa   string
}

func main() {
	var o options
	flag.StringVar(&o.path, "path", "states", "states, forward, coverage-build or coverage-score")
	flag.IntVar(&o.threads, "threads", 0, "workers; 0 means all processors")
	flag.StringVar(&o.kernel, "kernel", "", "instruction set; empty means the best")
	flag.StringVar(&o.arch, "arch", "", "architecture")
	flag.StringVar(&o.weights, "weights", "", "checkpoint")
	flag.StringVar(&o.images, "images", "", "float32 NCHW, raw")
	flag.IntVar(&o.batch, "batch", 0, "images of a batch")
	flag.StringVar(&o.layers, "layers", "", "layers, the deepest first")
	flag.StringVar(&o.states, "states", "", "float32 z and g, raw")
	flag.IntVar(&o.channels, "channels", 0, "neurons of the coverage's layer")
	flag.IntVar(&o.m, "M", 0, "thresholds")
	flag.IntVar(&o.o, "O", 0, "activations that cover a bin")
	flag.Float64Var(&o.alpha, "alpha", 0, "steepness")
	flag.Parse()
	if o.threads == 0 {
		o.threads = runtime.GOMAXPROCS(0)
	}
	// Go's own scheduler must not use more than the peers may.
	runtime.GOMAXPROCS(o.threads)
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "ours:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	var j *job
	var err error
	if strings.HasPrefix(o.path, "coverage-") {
		j, err = coverageJob(o)
	} else {
		j, err = networkJob(o)
	}
	if err != nil {
		return err
	}
	for range 3 {
		if err := j.run(); err != nil {
			return err
		}
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]any{"version": "nac, " + runtime.Version(), "isa": j.isa, "check": j.check}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		limit, err := strconv.ParseFloat(lines.Text(), 64)
		if err != nil {
			return err
		}
		if err := j.run(); err != nil { // what others displaced from the caches comes back unmeasured
			return err
		}
		began, done, seconds := time.Now(), 0, 0.0
		for seconds < limit || done == 0 {
			if err := j.run(); err != nil {
				return err
			}
			done += j.items
			seconds = time.Since(began).Seconds()
		}
		if err := out.Encode(map[string]any{"items": done, "seconds": seconds}); err != nil {
			return err
		}
	}
	return lines.Err()
}

func networkJob(o options) (*job, error) {
	sd, err := weights.Open(o.weights)
	if err != nil {
		return nil, err
	}
	model, err := arch.Load(o.arch, sd)
	if err != nil {
		return nil, err
	}
	set, err := kernel.ByName(o.kernel)
	if err != nil {
		return nil, err
	}
	request := arch.Request{Kernel: set.Name()}
	if o.path == "states" {
		request.Layers, request.Gradients = strings.Split(o.layers, ","), true
	}
	e, err := model.NewExtractor(request, o.batch, o.threads)
	if err != nil {
		return nil, err
	}
	images, err := floats(o.images)
	if err != nil {
		return nil, err
	}
	size := model.InputSize[0] * model.InputSize[1] * model.InputSize[2]
	if len(images) < o.batch*size {
		return nil, fmt.Errorf("%s: %d values, %d images need %d", o.images, len(images), o.batch, o.batch*size)
	}
	images = images[:o.batch*size]
	b, err := e.Run(images, o.batch)
	if err != nil {
		return nil, err
	}
	j := &job{items: o.batch, isa: set.Name(), run: func() error { _, err := e.Run(images, o.batch); return err }}
	j.check = append(j.check, doubles(b.Logits[:model.Classes]))
	for _, s := range b.States {
		j.check = append(j.check, []float64{meanSize(s.Z), meanSize(s.G)})
	}
	return j, nil
}

func coverageJob(o options) (*job, error) {
	both, err := floats(o.states)
	if err != nil {
		return nil, err
	}
	z, g := both[:len(both)/2], both[len(both)/2:]
	n := len(z) / o.channels
	if len(z) != n*o.channels || len(z) != len(g) {
		return nil, fmt.Errorf("%s: %d values are no rows of %d", o.states, len(both), o.channels)
	}
	newLayer := func() (*coverage.Layer, error) {
		return coverage.NewLayer(coverage.LayerSettings{Layer: "layer", M: o.m, O: o.o, Alpha: o.alpha, Func: coverage.SigmoidOG}, o.channels)
	}
	whole, err := newLayer()
	if err != nil {
		return nil, err
	}
	if err := whole.Add(z, g, n); err != nil {
		return nil, err
	}
	j := &job{items: len(z), isa: "as the machine has it"}
	scores := make([]float32, n)
	if o.path == "coverage-score" {
		j.run = func() error {
			return split(n, o.threads, func(_, from, to int) error {
				return whole.Score(z[from*o.channels:to*o.channels], g[from*o.channels:to*o.channels], to-from, scores[from:to])
			})
		}
		err := j.run()
		j.check = [][]float64{doubles(scores[:min(8, n)])}
		return j, err
	}
	// One shard a worker, as a build over a data set has; they are merged once,
	// at the end, which is not measured.
	shards := make([]*coverage.Layer, o.threads)
	for i := range shards {
		if shards[i], err = newLayer(); err != nil {
			return nil, err
		}
	}
	j.check = [][]float64{{whole.Summary().Coverage}}
	j.run = func() error {
		return split(n, o.threads, func(worker, from, to int) error {
			return shards[worker].Add(z[from*o.channels:to*o.channels], g[from*o.channels:to*o.channels], to-from)
		})
	}
	return j, nil
}

// split runs do on equal parts of n rows, one goroutine each.
func split(n, workers int, do func(worker, from, to int) error) error {
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { errs[w] = do(w, w*n/workers, (w+1)*n/workers) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func floats(path string) ([]float32, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out, nil
}

func doubles(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

func meanSize(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += math.Abs(float64(v))
	}
	return sum / float64(len(x))
}
