package main

import (
	"fmt"
	"os"
	"path/filepath"
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
