package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestWatchOnce(t *testing.T) {
	o := ownData(t)
	dir := t.TempDir()
	detector, inbox := filepath.Join(dir, "d.nac"), filepath.Join(dir, "inbox")
	o.fit(t, detector, "--id", o.part(t, "main_train_fashion", 0, 200))
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(inbox, name)
		if err := os.MkdirAll(inbox, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-time.Minute)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	put := func(list string, n int) {
		t.Helper()
		for i, line := range strings.Split(string(read(t, o.part(t, list, 0, n))), "\n")[:n] {
			write(fmt.Sprintf("%s-%d.png", list, i), read(t, filepath.Join(o.images, strings.Fields(line)[0])))
		}
	}
	if code, _, _ := call(t, "watch", detector, inbox); code != exitUsage {
		t.Errorf("a folder that is not there: exit code %d", code)
	}
	put("test_fashion", 30)
	if out := ok(t, "watch", detector, inbox, "--once"); !strings.HasPrefix(out, "30 new images: ") || !strings.Contains(out, "30 images so far, 0 alarms") {
		t.Errorf("first: %s", out)
	}
	if out := ok(t, "watch", detector, inbox, "--once"); !strings.HasPrefix(out, "0 new images: ") || !strings.Contains(out, "30 images so far") {
		t.Errorf("again: %s", out)
	}
	write("broken.png", []byte("hello"))
	if code, out, stderr := call(t, "watch", detector, inbox, "--once"); code != exitPartial || !strings.Contains(stderr, "broken.png") {
		t.Errorf("broken: exit code %d, %s%s", code, out, stderr)
	}
	put("test_bag", 60)
	if code, out, stderr := call(t, "watch", detector, inbox, "--once", "--run-length", "1000"); code != exitDrift || !strings.Contains(stderr, "images have changed") {
		t.Errorf("other images: exit code %d, %s%s", code, out, stderr)
	}
}

// A watch killed by SIGKILL in the middle of its work comes back with all that it said was
// stored, and in the end has counted each file once.
func TestWatchKilled(t *testing.T) {
	t.Parallel() // it waits most of the time
	if runtime.GOOS == "windows" {
		t.Skip("no SIGKILL")
	}
	o := ownData(t)
	dir := t.TempDir()
	detector, inbox := filepath.Join(dir, "d.nac"), filepath.Join(dir, "inbox")
	o.fit(t, detector, "--id", o.part(t, "main_train_fashion", 0, 100), "--detector", "nac", "--layers", "avgpool")
	if err := os.Mkdir(inbox, 0o700); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(read(t, o.part(t, "test_fashion", 0, 90))), "\n")[:90]
	put := func(first, last int) {
		t.Helper()
		for i, line := range lines[first:last] {
			path := filepath.Join(inbox, fmt.Sprintf("%02d.png", first+i))
			if err := os.WriteFile(path+".new", read(t, filepath.Join(o.images, strings.Fields(line)[0])), 0o600); err != nil {
				t.Fatal(err)
			}
			then := time.Now().Add(-time.Minute)
			if err := os.Chtimes(path+".new", then, then); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
	}
	type report struct{ Images, Stored, Window int64 }
	stored := int64(0)
	for round := range 3 {
		c := exec.Command(os.Args[0], "watch", detector, inbox, "--poll", "5ms", "--listen", "127.0.0.1:0", "--log-level", "error")
		c.Env = append(os.Environ(), "NAC_TEST_AS_PROGRAM=1")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, url, _ := strings.Cut(strings.TrimSpace(line), "see ")
		ask := func() (r report) {
			a, err := http.Get(url + "/drift")
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			all := []report{}
			if err := json.NewDecoder(a.Body).Decode(&all); err != nil || len(all) != 1 {
				t.Fatalf("%d reports, %v", len(all), err)
			}
			return all[0]
		}
		if r := ask(); r.Images < stored || r.Stored < stored || r.Window != r.Images {
			t.Errorf("round %d: %+v after %d were stored", round, r, stored)
		}
		put(30*round, 30*round+15)
		for before := stored; stored == before; time.Sleep(time.Millisecond) {
			stored = ask().Stored
		}
		put(30*round+15, 30*round+30) // seen or not, and not stored yet
		for images := stored; ask().Images == images; {
			time.Sleep(time.Millisecond)
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
	}
	if out := ok(t, "watch", detector, inbox, "--once", "--run-length", "1e9"); !strings.Contains(out, "\n90 images so far") {
		t.Errorf("in the end: %s", out)
	}
}
