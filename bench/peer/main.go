// Command peer measures nac against PyTorch and its neighbours: the same weights
// and images, the same threads, the contestants taking turns in one run.
//
//	bench/peer/setup.sh
//	go run ./bench/peer
//
// It prints a table in Markdown: median speeds over the rounds, and how many
// times as fast nac is. Before it measures it checks that all contestants
// compute the same numbers.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/cpuid/v2"

	"nac/internal/kernel"
)

type options struct {
	python, folder     string
	archs, batches     string
	layers, checkpoint string
	peers, kernel      string
	threads, rounds    int
	seconds            float64
	coverage           bool
}

func main() {
	var o options
	flag.StringVar(&o.folder, "dir", "bench/peer", "this program's folder")
	flag.StringVar(&o.python, "python", "", "Python of setup.sh; empty means $NAC_PEER_VENV or DIR/.venv")
	flag.StringVar(&o.archs, "arch", "resnet20,resnet18_32x32", "architectures")
	flag.StringVar(&o.batches, "batch", "64", "batch sizes")
	flag.StringVar(&o.layers, "layers", "", "layers whose states are taken, the deepest first; empty means the published settings'")
	flag.StringVar(&o.checkpoint, "checkpoint", "", "weights for a single architecture; empty means random ones")
	flag.StringVar(&o.peers, "peers", "reference,single,compiled,bfloat16,forward,onnxruntime,openvino", "whom to measure besides nac")
	flag.StringVar(&o.kernel, "kernel", "", "instruction set for all: avx512 or avx2; empty means the best; bf16 is nac's and one peer's alone")
	flag.IntVar(&o.threads, "threads", runtime.NumCPU(), "threads of each contestant")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.Float64Var(&o.seconds, "seconds", 2, "seconds of each contestant in a round")
	flag.BoolVar(&o.coverage, "coverage", true, "measure coverage too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.python == "" {
		venv := os.Getenv("NAC_PEER_VENV")
		if venv == "" {
			venv = filepath.Join(o.folder, ".venv")
		}
		o.python = filepath.Join(venv, "bin", "python")
	}
	if _, err := os.Stat(o.python); err != nil {
		return fmt.Errorf("no Python environment: run %s first: %w", filepath.Join(o.folder, "setup.sh"), err)
	}
	set, err := kernel.ByName(o.kernel)
	if err != nil {
		return err
	}
	o.kernel = set.Name()
	work, err := os.MkdirTemp("", "nac-peer")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := bench{options: o, work: work}
	if err := b.command(ctx, "go", "build", "-o", filepath.Join(work, "ours"), "./"+filepath.ToSlash(filepath.Join(o.folder, "ours"))).Run(); err != nil {
		return err
	}
	fmt.Printf("%s, %d of %d logical cores, %s; %d rounds of %g s, median (lowest to highest).\n",
		cpuid.CPU.BrandName, o.threads, runtime.NumCPU(), o.kernel, o.rounds, o.seconds)
	for name := range strings.SplitSeq(o.archs, ",") {
		for text := range strings.SplitSeq(o.batches, ",") {
			size, err := strconv.Atoi(text)
			if err != nil || size < 1 {
				return fmt.Errorf("batch %q: want a positive number", text)
			}
			if err := b.network(ctx, name, size); err != nil {
				return err
			}
		}
	}
	if o.coverage {
		for _, c := range []coverageCase{{512, 50, 50, 64}, {2048, 1000, 50, 64}} {
			if err := b.coverageOf(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

type bench struct {
	options
	work     string
	versions []string
}

// command prepares a process whose libraries are held to the instruction set.
func (b *bench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if b.kernel == "avx2" {
		c.Env = append(c.Env, "ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "DNNL_MAX_CPU_ISA=AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2")
	}
	return c
}

func (b *bench) network(ctx context.Context, name string, size int) error {
	side := 32
	if !strings.HasPrefix(name, "resnet20") && !strings.HasSuffix(name, "_32x32") {
		side = 224
	}
	weights, images := filepath.Join(b.work, name+".safetensors"), filepath.Join(b.work, "images")
	args := []string{filepath.Join(b.folder, "networks.py"), "--arch", name, "--out", weights}
	if b.checkpoint != "" {
		args = append(args, "--checkpoint", b.checkpoint)
	}
	if err := b.command(ctx, b.python, args...).Run(); err != nil {
		return fmt.Errorf("%s: weights: %w", name, err)
	}
	layers := b.layers
	if layers == "" {
		layers = layersOf(name)
	}
	random := rand.New(rand.NewPCG(1, uint64(size)))
	if err := writeFloats(images, size*3*side*side, func(int) float32 { return float32(random.NormFloat64()) }); err != nil {
		return err
	}
	flags := []string{"--arch", name, "--weights", weights, "--images", images, "--batch", strconv.Itoa(size), "--layers", layers}
	contestants := []*contestant{
		{name: "nac, states", ours: true, path: "states"},
		{name: "nac, forward only", ours: true, path: "forward"},
	}
	for _, p := range []*contestant{
		{name: "PyTorch, a backward pass per layer (the reference's way)", path: "reference"},
		{name: "PyTorch, one backward pass, folded, channels last", path: "single"},
		{name: "the same, stages compiled", path: "compiled"},
		{name: "PyTorch, one backward pass, in bfloat16", path: "bfloat16"},
		{name: "PyTorch, forward only, frozen graph", path: "forward"},
		{name: "ONNX Runtime, forward only", path: "onnxruntime"},
		{name: "OpenVINO, forward only", path: "openvino"},
	} {
		if !slices.Contains(strings.Split(b.peers, ","), p.path) {
			continue
		}
		if p.path == "bfloat16" && b.kernel != kernel.BF16 {
			continue // it computes something else
		}
		if p.path == "onnxruntime" && b.kernel == "avx2" && cpuid.CPU.Supports(cpuid.AVX512F) {
			fmt.Fprintln(os.Stderr, "peer: ONNX Runtime cannot be held to AVX2 on this machine: left out")
			continue
		}
		contestants = append(contestants, p)
	}
	title := fmt.Sprintf("%s, batch %d, states of %s", name, size, layers)
	return b.measure(ctx, title, "images/s", 1, contestants, flags)
}

// layersOf are the layers of the published settings, or their like.
func layersOf(arch string) string {
	switch {
	case strings.HasPrefix(arch, "vit_b"):
		return "layer_norm,layer_11,layer_10,layer_9"
	case strings.HasPrefix(arch, "swin"):
		return "avgpool,layer_7,layer_5,layer_3"
	}
	return "avgpool,layer3,layer2,layer1"
}

type coverageCase struct{ channels, m, o, samples int }

func (b *bench) coverageOf(ctx context.Context, c coverageCase) error {
	states := filepath.Join(b.work, "states")
	random := rand.New(rand.NewPCG(2, uint64(c.channels)))
	n := c.samples * c.channels
	// Activations as a ReLU leaves them, gradients of either sign.
	if err := writeFloats(states, 2*n, func(i int) float32 {
		v := random.NormFloat64()
		if i < n {
			return float32(max(v, 0))
		}
		return float32(0.02 * v)
	}); err != nil {
		return err
	}
	flags := []string{"--states", states, "--channels", strconv.Itoa(c.channels), "--M", strconv.Itoa(c.m), "--O", strconv.Itoa(c.o), "--alpha", "100"}
	for _, what := range []string{"build", "score"} {
		title := fmt.Sprintf("Coverage, %s: %d neurons, M %d, %d samples a batch", what, c.channels, c.m, c.samples)
		err := b.measure(ctx, title, "M states/s", 1e6, []*contestant{
			{name: "nac", ours: true, path: "coverage-" + what},
			{name: "PyTorch, every state against every threshold (the reference's way)", path: "coverage-" + what},
		}, flags)
		if err != nil {
			return err
		}
	}
	return nil
}

// contestant is a process that does one job when told to.
type contestant struct {
	name, path string
	ours       bool

	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	about struct {
		Version, ISA string
		Check        [][]float64
	}
	speeds []float64
}

func (b *bench) start(ctx context.Context, c *contestant, flags []string) error {
	flags = append([]string{"--path", c.path, "--threads", strconv.Itoa(b.threads)}, flags...)
	if c.ours {
		c.cmd = b.command(ctx, filepath.Join(b.work, "ours"), append(flags, "--kernel", b.kernel)...)
	} else {
		c.cmd = b.command(ctx, b.python, append([]string{filepath.Join(b.folder, "peer.py")}, flags...)...)
	}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		return err
	}
	return c.read(&c.about)
}

func (c *contestant) stop() error {
	c.in.Close()
	return c.cmd.Wait()
}

// read takes the next line of JSON. A library may print lines of its own first.
func (c *contestant) read(into any) error {
	for c.out.Scan() {
		if line := c.out.Bytes(); len(line) > 0 && line[0] == '{' {
			return json.Unmarshal(line, into)
		}
	}
	return errors.Join(fmt.Errorf("%s: ended before it answered", c.name), c.out.Err())
}

// round lets c work for so many seconds and notes its speed.
func (c *contestant) round(seconds float64) error {
	if _, err := fmt.Fprintln(c.in, seconds); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	var r struct{ Items, Seconds float64 }
	if err := c.read(&r); err != nil {
		return err
	}
	c.speeds = append(c.speeds, r.Items/r.Seconds)
	return nil
}

// measure starts the contestants, compares what they compute, lets them take
// turns and prints their table. Only one works at a time.
func (b *bench) measure(ctx context.Context, title, unit string, scale float64, contestants []*contestant, flags []string) error {
	for _, c := range contestants {
		if err := b.start(ctx, c, flags); err != nil {
			return err
		}
		defer c.stop()
		if err := b.agree(contestants[0], c); err != nil {
			return err
		}
	}
	for r := range b.rounds {
		for i := range contestants {
			// Each round begins with another one, so that nobody always follows the same.
			if err := contestants[(i+r)%len(contestants)].round(b.seconds); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\n%s\n\n| | %s | nac is |\n|---|---|---|\n", title, unit)
	// Forward only is compared with forward only.
	base := map[bool]*contestant{}
	for _, c := range contestants {
		if c.ours {
			base[c.forwardOnly()] = c
		}
	}
	for _, c := range contestants {
		ratio := ""
		if !c.ours {
			ratio = fmt.Sprintf("%.2fx", median(base[c.forwardOnly()].speeds)/median(c.speeds))
		}
		fmt.Printf("| %s | %s (%s to %s) | %s |\n", c.name, number(median(c.speeds)/scale), number(slices.Min(c.speeds)/scale), number(slices.Max(c.speeds)/scale), ratio)
	}
	var versions []string
	for _, c := range contestants {
		if v := c.about.Version; !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
	}
	if !slices.Equal(versions, b.versions) {
		b.versions = versions
		fmt.Printf("\n%s.\n", strings.Join(versions, "; "))
	}
	return nil
}

func (c *contestant) forwardOnly() bool {
	return c.path == "forward" || c.path == "onnxruntime" || c.path == "openvino"
}

// agree returns an error if two contestants compute different things. Those
// that run forward alone have no states to compare.
func (b *bench) agree(one, other *contestant) error {
	tolerance := 1e-4
	if b.kernel == kernel.BF16 {
		tolerance = 0.05
	}
	for i := range min(len(one.about.Check), len(other.about.Check)) {
		x, y := one.about.Check[i], other.about.Check[i]
		if len(x) != len(y) {
			return fmt.Errorf("%s and %s: %d and %d numbers to compare", one.name, other.name, len(x), len(y))
		}
		size := 0.0
		for _, v := range x {
			size = max(size, math.Abs(v))
		}
		for j := range x {
			// The gradients of one layer are much smaller than its activations.
			if len(x) == 2 {
				size = math.Abs(x[j])
			}
			if !(math.Abs(x[j]-y[j]) <= tolerance*size) {
				return fmt.Errorf("%s and %s do not compute the same: %v against %v", one.name, other.name, x, y)
			}
		}
	}
	return nil
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// number prints three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func writeFloats(path string, n int, value func(i int) float32) error {
	data := make([]byte, 0, 4*n)
	for i := range n {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(value(i)))
	}
	return os.WriteFile(path, data, 0o644)
}
