// Command serve measures "nac serve" beside the bare engine: requests a second and
// their times at several numbers of connections, or, with -requests, memory over
// many requests. The server is started on a free port of this machine and ended again;
// arguments that follow the flags are its own.
//
//	go build ./cmd/nac && go run ./bench/serve -nac ./nac -detector d.nac -image photo.png
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nac"
	"nac/imageset"
)

func main() {
	var l load
	flag.StringVar(&l.nac, "nac", "nac", "the `program` to measure")
	flag.StringVar(&l.file, "detector", "", "`file` that nac fit wrote")
	flag.StringVar(&l.image, "image", "", "`file` that is sent again and again")
	flag.BoolVar(&l.tensors, "tensors", false, "send the decoded image, as a binary tensor of the inference protocol")
	flag.DurationVar(&l.time, "time", 2*time.Second, "`time` of each measurement")
	flag.IntVar(&l.rounds, "rounds", 3, "`number` of measurements of each kind, in turns")
	flag.StringVar(&l.connections, "connections", "1,8,64", "`numbers` of connections")
	flag.Int64Var(&l.requests, "requests", 0, "send this `number` of requests over each number of connections and show the server's memory")
	flag.Parse()
	if err := l.run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

type load struct {
	nac, file, image, connections string
	tensors                       bool
	time                          time.Duration
	requests                      int64
	rounds                        int
}

func (l *load) run() (err error) {
	data, err := os.ReadFile(l.image)
	if err != nil {
		return err
	}
	d, tensor, err := l.open(data)
	if err != nil {
		return err
	}
	request := request("/score", "", data)
	if l.tensors {
		request = tensorRequest(d.Info().Model.Input, tensor)
	}
	server := exec.Command(l.nac, append([]string{"serve", "--listen", "127.0.0.1:0", "d=" + l.file}, flag.Args()...)...)
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, server.Process.Signal(syscall.SIGTERM), server.Wait())
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the server did not start: %w", err)
	}
	_, address, _ := strings.Cut(strings.TrimSpace(line), "http://")
	for _, text := range strings.Split(l.connections, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-connections: %q", text)
		}
		if l.requests == 0 {
			if err := l.compare(address, server.Process.Pid, request, n, d, tensor); err != nil {
				return err
			}
			continue
		}
		r, err := send(address, request, n, func(i int64) bool {
			if i%max(l.requests/20, 1) == 0 {
				fmt.Printf("%9d requests: %s\n", i, memory(server.Process.Pid))
			}
			return i < l.requests
		}, nil)
		if err != nil {
			return err
		}
		fmt.Printf("%2d connections: %v\n", n, r)
	}
	return nil
}

// open loads the detector, and decodes and transforms the image for it.
func (l *load) open(image []byte) (*nac.Detector, []float32, error) {
	d, err := nac.Load(l.file, nil)
	if err != nil {
		return nil, nil, err
	}
	info := d.Info()
	m, err := nac.Open(info.Model.Path, info.Model.Architecture)
	if err != nil {
		return nil, nil, err
	}
	if d, err = nac.Load(l.file, m); err != nil {
		return nil, nil, err
	}
	img, err := imageset.DecodeBytes(l.image, image)
	if err != nil {
		return nil, nil, err
	}
	tensor := make([]float32, info.Model.Input[0]*info.Model.Input[1]*info.Model.Input[2])
	return d, tensor, info.Transform.Apply(img, tensor)
}

// request is the bytes of a POST; headers are whole lines.
func request(path, headers string, body []byte) []byte {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n", path, headers, len(body))
	return append([]byte(head), body...)
}

func tensorRequest(shape [3]int, tensor []float32) []byte {
	body := fmt.Appendf(nil, `{"inputs":[{"name":"images","datatype":"FP32","shape":[1,%d,%d,%d],"parameters":{"binary_data_size":%d}}]}`,
		shape[0], shape[1], shape[2], 4*len(tensor))
	headers := fmt.Sprintf("Inference-Header-Content-Length: %d\r\n", len(body))
	for _, x := range tensor {
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(x))
	}
	return request("/v2/models/d/infer", headers, body)
}

// compare measures the server over n connections, and the engine alone before and after it,
// for the machine's speed may change meanwhile, and prints the medians of the rounds, and
// what part of the processors server and client took.
func (l *load) compare(address string, pid int, request []byte, n int, d *nac.Detector, tensor []float32) error {
	all := result{statuses: map[int]int{}}
	var engine, ratios, costs []float64
	var used [2]time.Duration
	before, err := l.raw(d, tensor)
	if err != nil {
		return err
	}
	for range l.rounds {
		var begin, end [2]time.Duration
		// Goroutines that wait on several processors keep those awake, which the server needs.
		processors := runtime.GOMAXPROCS(1)
		r, err := send(address, request, n, func(int64) bool { return true }, &window{
			after: l.time / 4, length: l.time,
			begin: func() { begin = [2]time.Duration{processorTime(pid), processorTime(os.Getpid())} },
			end:   func() { end = [2]time.Duration{processorTime(pid), processorTime(os.Getpid())} },
		})
		runtime.GOMAXPROCS(processors)
		if err != nil {
			return err
		}
		after, err := l.raw(d, tensor)
		if err != nil {
			return err
		}
		for i := range used {
			used[i] += end[i] - begin[i]
		}
		all.add(r)
		server := speed{r.rate(), float64(len(r.times)) / (end[0] - begin[0]).Seconds()}
		alone := speed{(before.wall + after.wall) / 2, (before.processor + after.processor) / 2}
		engine, ratios, costs = append(engine, alone.wall), append(ratios, server.wall/alone.wall), append(costs, server.processor/alone.processor)
		before = after
	}
	slices.Sort(engine)
	slices.Sort(ratios)
	slices.Sort(costs)
	share := func(d time.Duration) float64 {
		return 100 * d.Seconds() / all.took.Seconds() / float64(runtime.NumCPU())
	}
	fmt.Printf("%2d connections: %v; the engine alone %.0f images/s, the server %.0f %% of it (%.0f to %.0f), %.0f %% by processor time; of the processors server %.0f %%, client %.0f %%\n", n, all,
		engine[l.rounds/2], 100*ratios[l.rounds/2], 100*ratios[0], 100*ratios[l.rounds-1], 100*costs[l.rounds/2], share(used[0]), share(used[1]))
	return nil
}

// speed is images a second: of time, and of processor time that the process had.
type speed struct{ wall, processor float64 }

// raw is how many images the engine scores in full batches in this process,
// decoded and transformed beforehand.
func (l *load) raw(d *nac.Detector, tensor []float32) (speed, error) {
	const batch = 64
	input, results := slices.Repeat(tensor, batch), make([]nac.Result, batch)
	var start time.Time
	var used time.Duration
	n := 0
	for i := 0; i < 2 || time.Since(start) < l.time; i++ {
		if i == 1 { // the first batch makes ready
			start, used, n = time.Now(), processorTime(os.Getpid()), 0
		}
		if err := d.ScoreTensors(context.Background(), input, results); err != nil {
			return speed{}, err
		}
		n += batch
	}
	return speed{float64(n) / time.Since(start).Seconds(), float64(n) / (processorTime(os.Getpid()) - used).Seconds()}, nil
}

type result struct {
	times    []time.Duration // of requests
	took     time.Duration
	statuses map[int]int
}

func (r *result) add(other result) {
	r.times = append(r.times, other.times...)
	r.took += other.took
	for status, n := range other.statuses {
		r.statuses[status] += n
	}
}

func (r result) rate() float64 { return float64(len(r.times)) / r.took.Seconds() }

func (r result) String() string {
	slices.Sort(r.times)
	n := len(r.times)
	s := fmt.Sprintf("%.0f requests/s, p50 %.1f ms, p99 %.1f ms", r.rate(), r.times[n/2].Seconds()*1e3, r.times[n*99/100].Seconds()*1e3)
	for status, n := range r.statuses {
		s += fmt.Sprintf(", %d with status %d", n, status)
	}
	return s
}

// window is a part of a time of constant load: what begins and ends outside is not typical.
type window struct {
	after, length time.Duration
	begin, end    func()
}

// send sends the request over n connections, each with one at a time, while more says so.
// Only what is answered within the window counts, if there is one, and the load ends with
// it. Ready bytes are written: the client shares the processors with the server and
// should cost little.
func send(address string, request []byte, n int, more func(i int64) bool, w *window) (result, error) {
	var sent atomic.Int64
	var workers sync.WaitGroup
	var mu sync.Mutex
	r := result{statuses: map[int]int{}}
	var errs []error
	start := time.Now()
	if w != nil {
		workers.Go(func() {
			time.Sleep(w.after)
			w.begin()
			time.Sleep(w.after + w.length - time.Since(start))
			w.end()
		})
	}
	for range n {
		workers.Go(func() {
			var mine []time.Duration
			statuses := map[int]int{}
			err := func() error {
				c, err := net.Dial("tcp", address)
				if err != nil {
					return err
				}
				defer c.Close()
				in := bufio.NewReader(c)
				for (w == nil || time.Since(start) < w.after+w.length) && more(sent.Add(1)-1) {
					begin := time.Now()
					if _, err := c.Write(request); err != nil {
						return err
					}
					status, err := answer(in)
					if err != nil {
						return err
					}
					if at := time.Since(start); w != nil && (at < w.after || at > w.after+w.length) && status == 200 {
						continue
					}
					statuses[status]++
					mine = append(mine, time.Since(begin))
				}
				return nil
			}()
			mu.Lock()
			defer mu.Unlock()
			r.add(result{times: mine, statuses: statuses})
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	r.took = time.Since(start)
	if w != nil {
		r.took = w.length
	}
	return r, nil
}

// answer reads a response of HTTP/1.1 that says how long it is, as the server's all do.
func answer(in *bufio.Reader) (status int, err error) {
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimSpace(line)
		if status == 0 {
			_, after, _ := bytes.Cut(line, []byte(" "))
			code, _, _ := bytes.Cut(after, []byte(" "))
			if status, err = strconv.Atoi(string(code)); err != nil {
				return 0, fmt.Errorf("answered %q: %w", line, err)
			}
			continue
		}
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("an answer without its length")
	}
	_, err = in.Discard(length)
	return status, err
}

// memory is what the kernel says of a process (Linux).
func memory(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "memory unknown"
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return "RSS " + strings.TrimSpace(value)
		}
	}
	return "memory unknown"
}

// processorTime is what a process has had of the processors (Linux, to a hundredth of a second).
func processorTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(text, []byte(") ")) // behind the name, from the third field on
	fields := bytes.Fields(after)
	ticks := 0
	for _, field := range fields[11:13] {
		n, _ := strconv.Atoi(string(field))
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}
