package serve

import (
	"testing"
	"time"
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
		b := &batcher{delay: 2 * ms, took: c.took, expected: c.expected, ended: begin.Add(-ms)}
		b.coming.Store(c.coming)
		if got := b.wait(c.images, begin, begin.Add(c.waited)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Who waits for an image that then does not come goes on at once.
func TestBatchDeserted(t *testing.T) {
	s, url := start(t, Options{MaxDelay: time.Hour, Timeout: 2 * time.Hour})
	_, files := testFiles(t, "test_fashion", 1)
	b := s.detectors["fashion"].current.batcher
	arrived := b.announce()
	answered := make(chan int)
	go func() {
		a, _ := post(t, url+"/score", "image/png", files[0])
		answered <- a.StatusCode
	}()
	for b.coming.Load() != 1 || s.images.Load() != 1 {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-answered:
		t.Error("not waited for company")
	case <-time.After(20 * time.Millisecond):
	}
	arrived()
	if status := <-answered; status != 200 {
		t.Errorf("status %d", status)
	}
}
