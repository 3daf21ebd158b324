package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nac"
)

func TestBatchWait(t *testing.T) {
	const ms = time.Millisecond
	begin := time.Now()
	for _, c := range []struct {
		name             string
		coming           int64
		images, expected int
		took             time.Duration // by the last run, which ended 1 ms before begin
		waited, want     time.Duration
	}{
		{"a client alone", 0, 1, 1, 100 * ms, 0, 0},
		{"the first of all", 0, 1, 0, 0, 0, 0},
		{"one is being decoded", 1, 1, 1, 0, 0, 2 * ms},
		{"and that for long", 1, 1, 1, 0, 5 * ms, -3 * ms},
		{"a slow network", 1, 1, 1, 400 * ms, 10 * ms, 90 * ms},
		{"a very slow one", 1, 1, 1, time.Hour, 0, mostPatience},
		{"clients that were answered", 0, 2, 3, 40 * ms, 0, 9 * ms},
		{"and have gone", 0, 2, 3, 40 * ms, 10 * ms, -ms},
		{"all back", 0, 3, 3, 40 * ms, 0, 0},
	} {
		l := &lane{batcher: &batcher{delay: 2 * ms}, took: c.took, expected: c.expected, ended: begin.Add(-ms)}
		l.coming.Store(c.coming)
		if got := l.wait(c.images, begin, begin.Add(c.waited)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestBatchLimit(t *testing.T) {
	for _, c := range []struct{ lanes, most, coming, inside, want int }{
		{2, 64, 0, 1, 1},
		{2, 64, 1, 1, 1},
		{2, 64, 0, 5, 3},
		{2, 64, 8, 8, 8},
		{2, 64, 10, 12, 8},
		{2, 64, 0, 64, 16},
		{2, 64, 64, 192, 64},
		{2, 2, 0, 64, 2},
		{1, 64, 0, 1, 1},
		{1, 64, 0, 64, 32},
	} {
		b := &batcher{most: c.most, lanes: make([]*lane, c.lanes)}
		b.coming.Store(int64(c.coming))
		b.inside.Store(int64(c.inside))
		if got := b.limit(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// Both lanes run, and what an image scores does not depend on which, or on its company.
func TestLanes(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one processor has one lane")
	}
	s, _ := start(t, Options{MaxBatch: 4})
	d := s.detectors["fashion"]
	_, files := testFiles(t, "test_fashion", 40)
	want := make([]nac.Result, len(files))
	v := d.use()
	defer v.users.Done()
	for i, f := range files { // one at a time, so with all processors
		var err error
		if want[i], err = d.scoreImage(t.Context(), v, f, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(v.batcher.lanes); n != 2 {
		t.Fatalf("%d lanes", n)
	}
	var clients sync.WaitGroup
	var both atomic.Bool // lanes ran at a time
	for i, f := range files {
		clients.Go(func() {
			for k := 0; k < 3 || !both.Load() && k < 300; k++ {
				if v.batcher.running.Load() == 2 {
					both.Store(true)
				}
				if got, err := d.scoreImage(t.Context(), v, f, nil); err != nil || got != want[i] {
					t.Errorf("image %d: %+v, %v, alone %+v", i, got, err, want[i])
				}
			}
		})
	}
	clients.Wait()
	if !both.Load() {
		t.Error("one lane ran at a time")
	}
	if n := v.batcher.inside.Load() + v.batcher.coming.Load() + v.batcher.running.Load(); n != 0 {
		t.Errorf("%d images are left", n)
	}
}

// Who waits for images that then do not come goes on at once.
func TestBatchDeserted(t *testing.T) {
	s, url := start(t, Options{MaxDelay: time.Hour, Timeout: 2 * time.Hour})
	_, files := testFiles(t, "test_fashion", 1)
	b := s.detectors["fashion"].current.batcher
	var arrived []func()
	for range 3 { // so that a batch may have two images, whatever the lanes
		arrived = append(arrived, b.announce())
	}
	answered := make(chan int)
	go func() {
		a, _ := post(t, url+"/score", "image/png", files[0])
		answered <- a.StatusCode
	}()
	for b.coming.Load() != 3 || s.images.Load() != 1 {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-answered:
		t.Error("not waited for company")
	case <-time.After(20 * time.Millisecond):
	}
	for _, f := range arrived {
		f()
	}
	if status := <-answered; status != 200 {
		t.Errorf("status %d", status)
	}
}

// Who is not answered in time, or gives up, is left out of the batch, and the next are served.
func TestBatchLate(t *testing.T) {
	s, url := start(t, Options{MaxDelay: time.Hour, Timeout: 400 * time.Millisecond})
	_, files := testFiles(t, "test_fashion", 1)
	d := s.detectors["fashion"]
	b := d.current.batcher
	tensor := fmt.Appendf(nil, `{"inputs":[{"name":"images","datatype":"FP32","shape":[1,3,32,32],"data":[0%s]}]}`, strings.Repeat(",0", 3*32*32-1))
	var arrived []func()
	for range 12 { // so that a batch waits for more than come
		arrived = append(arrived, b.announce())
	}
	if a, text := post(t, url+"/score", "image/png", files[0]); a.StatusCode != 503 {
		t.Errorf("late image: %d %s", a.StatusCode, text)
	}
	if a, text := post(t, url+"/v2/models/fashion/infer", "", tensor); a.StatusCode != 503 {
		t.Errorf("late tensor: %d %s", a.StatusCode, text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.scoreImage(ctx, d.current, files[0], &file{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	for _, f := range arrived {
		f()
	}
	for b.inside.Load() != 0 {
		time.Sleep(time.Millisecond)
	}
	d.server.options.Timeout = time.Hour
	if a, text := post(t, url+"/score", "image/png", files[0]); a.StatusCode != 200 {
		t.Errorf("after them: %d %s", a.StatusCode, text)
	}
}
