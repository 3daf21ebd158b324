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
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
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
	flag.DurationVar(&l.time, "time", 10*time.Second, "`time` of each measurement")
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
	time                          time.Duration
	requests                      int64
}

func (l *load) run() (err error) {
	data, err := os.ReadFile(l.image)
	if err != nil {
		return err
	}
	raw := 0.0
	if l.requests == 0 {
		if raw, err = l.raw(data); err != nil {
			return err
		}
		fmt.Printf("engine alone: %.0f images/s\n", raw)
	}
	server := exec.Command(l.nac, append([]string{"serve", "--listen", "127.0.0.1:0", l.file}, flag.Args()...)...)
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
			r, err := send(address, data, n, func(int64) bool { return true }, l.time)
			if err != nil {
				return err
			}
			fmt.Printf("%2d connections: %v, %.0f %% of the engine\n", n, r, 100*r.rate/raw)
			continue
		}
		r, err := send(address, data, n, func(i int64) bool {
			if i%max(l.requests/20, 1) == 0 {
				fmt.Printf("%9d requests: %s\n", i, memory(server.Process.Pid))
			}
			return i < l.requests
		}, 0)
		if err != nil {
			return err
		}
		fmt.Printf("%2d connections: %v\n", n, r)
	}
	return nil
}

// raw is how many images a second the engine scores in full batches in this process,
// decoded and transformed beforehand.
func (l *load) raw(data []byte) (float64, error) {
	d, err := nac.Load(l.file, nil)
	if err != nil {
		return 0, err
	}
	info := d.Info()
	m, err := nac.Open(info.Model.Path, info.Model.Architecture)
	if err != nil {
		return 0, err
	}
	if d, err = nac.Load(l.file, m); err != nil {
		return 0, err
	}
	const batch = 64
	img, err := imageset.DecodeBytes(l.image, data)
	if err != nil {
		return 0, err
	}
	size := info.Model.Input[0] * info.Model.Input[1] * info.Model.Input[2]
	one := make([]float32, size)
	if err := info.Transform.Apply(img, one); err != nil {
		return 0, err
	}
	input, results := slices.Repeat(one, batch), make([]nac.Result, batch)
	var start time.Time
	n := 0
	for i := 0; i < 3 || time.Since(start) < l.time; i++ {
		if i == 2 { // the first batches make ready
			start, n = time.Now(), 0
		}
		if err := d.ScoreTensors(context.Background(), input, results); err != nil {
			return 0, err
		}
		n += batch
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

type result struct {
	rate     float64
	p50, p99 time.Duration
	statuses map[int]int
}

func (r result) String() string {
	s := fmt.Sprintf("%.0f requests/s, p50 %.1f ms, p99 %.1f ms", r.rate, r.p50.Seconds()*1e3, r.p99.Seconds()*1e3)
	for status, n := range r.statuses {
		s += fmt.Sprintf(", %d with status %d", n, status)
	}
	return s
}

// send posts the image over n connections, each with one request at a time, while more
// says so and, unless it is 0, for limit. It writes ready bytes: the client shares the
// processors with the server and should cost little.
func send(address string, image []byte, n int, more func(i int64) bool, limit time.Duration) (result, error) {
	request := fmt.Appendf(nil, "POST /score HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", address, len(image))
	request = append(request, image...)
	var sent atomic.Int64
	var workers sync.WaitGroup
	var mu sync.Mutex
	var times []time.Duration
	r := result{statuses: map[int]int{}}
	var errs []error
	start := time.Now()
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
				for (limit == 0 || time.Since(start) < limit) && more(sent.Add(1)-1) {
					begin := time.Now()
					if _, err := c.Write(request); err != nil {
						return err
					}
					a, err := http.ReadResponse(in, nil)
					if err != nil {
						return err
					}
					var body bytes.Buffer
					if _, err := io.Copy(&body, a.Body); err != nil {
						return err
					}
					statuses[a.StatusCode]++
					mine = append(mine, time.Since(begin))
				}
				return nil
			}()
			mu.Lock()
			defer mu.Unlock()
			times = append(times, mine...)
			for status, k := range statuses {
				r.statuses[status] += k
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	r.rate = float64(len(times)) / time.Since(start).Seconds()
	slices.Sort(times)
	r.p50, r.p99 = times[len(times)/2], times[len(times)*99/100]
	return r, nil
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
