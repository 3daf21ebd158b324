package serve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Each version of a file is scored once, across restarts and in every kind of trouble.
func TestFolder(t *testing.T) {
	ctx := context.Background()
	dir, store := t.TempDir(), filepath.Join(t.TempDir(), "state")
	_, images := testFiles(t, "test_fashion", 20)
	put := func(name string, data []byte, age time.Duration) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	var s *Server
	open := func() {
		t.Helper()
		var err error
		if s, err = New([]Source{source(folder(t))}, Options{Store: store}); err != nil {
			t.Fatal(err)
		}
	}
	scan := func(images, failed, young int, total int64) {
		t.Helper()
		got, err := s.ScanFolder(ctx, "fashion", dir)
		if err != nil || got.Images != images || got.Failed != failed || got.Young != young || got.Drift.Images != total {
			t.Errorf("%d images, %d failed, %d young, %d in all, %v; want %d, %d, %d, %d", got.Images, got.Failed, got.Young, got.Drift.Images, err, images, failed, young, total)
		}
	}
	open()
	for i, data := range images[:16] {
		put(fmt.Sprintf("day%d/%02d.png", i%3, i), data, time.Hour)
	}
	put("broken.png", images[0][:100], time.Hour)
	put(".hidden.png", images[0], time.Hour)
	put(".trash/a.png", images[0], time.Hour)
	put("notes.txt", []byte("hello"), time.Hour)
	scan(16, 1, 0, 16)
	scan(0, 0, 0, 16)
	s.save() // what is known must be known from the disk too
	if n := len(s.detectors["fashion"].files); n != 0 {
		t.Errorf("%d files are still in memory", n)
	}
	scan(0, 0, 0, 16)
	put("day0/00.png", images[16], 30*time.Minute) // another version
	put("broken.png", images[17], 30*time.Minute)  // put right
	put("young.png", images[18], 0)
	scan(2, 0, 1, 18)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	open()
	scan(0, 0, 1, 18)
	put("young.png", images[18], time.Minute)
	gone := filepath.Join(dir, "day1", "01.png")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	d := s.detectors["fashion"]
	if v, err := s.store.File(d.key, gone); v == "" || err != nil {
		t.Errorf("%s is not stored: %v", gone, err)
	}
	d.tidied = time.Time{}
	scan(1, 0, 0, 19)
	if v, err := s.store.File(d.key, gone); v != "" || err != nil {
		t.Errorf("%s is still stored: %q, %v", gone, v, err)
	}
	if r := d.report(); len(r.Worst) == 0 || r.Worst[0].File != filepath.Join(dir, "young.png") {
		t.Errorf("worst: %+v", r.Worst)
	}
	if _, err := s.ScanFolder(ctx, "fashion", filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a folder that is not there")
	}

	// Polling finds what comes, and ends with its context.
	watching, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		s.WatchFolder(watching, "fashion", dir, 5*time.Millisecond)
		close(ended)
	}()
	put("late/x.png", images[19], time.Minute)
	for d.report().Images != 20 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
