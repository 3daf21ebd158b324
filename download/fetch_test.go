package download

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// zipOf makes an archive; names that end in a slash are folders.
func zipOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// noise is content that does not shrink.
func noise(n int) string {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	r.Read(b)
	return string(b)
}

// faults are what a fake Google Drive does wrong.
type faults struct {
	noPage       bool // small files come without a page
	page         string
	pages        int // this many pages come though confirmed
	dropAfter    int // each answer breaks off after so many bytes
	dropTimes    int // the first answers alone break off; 0 means all
	ignoreRange  bool
	noValidators bool
	noLength     bool
	wrongBytes   int // this many answers have a byte wrong
	wrongRange   int // this many answers to a Range start elsewhere
	status       int
	statusTimes  int
	stallTimes   int // this many answers stop in the middle, but stay open
	hash         string
	encoding     string
	loop         bool
	login        bool
	changed      bool // another version after the first answer
}

// fakeDrive answers as Google Drive does, with faults.
type fakeDrive struct {
	*httptest.Server
	faults
	content []byte

	mu      sync.Mutex
	answers int      // for the file itself
	ranges  []string // their Range headers
}

func newFakeDrive(t testing.TB, content []byte, f faults) *fakeDrive {
	d := &fakeDrive{faults: f, content: content}
	d.Server = httptest.NewServer(d)
	t.Cleanup(d.Close)
	return d
}

func (d *fakeDrive) seen() (answers int, ranges []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answers, slices.Clone(d.ranges)
}

func (d *fakeDrive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case d.login:
		http.Redirect(w, r, "https://accounts.google.com/ServiceLogin", http.StatusFound)
	case d.loop:
		http.Redirect(w, r, "/uc?"+r.URL.RawQuery+"&x", http.StatusFound)
	case r.URL.Path == "/uc":
		http.Redirect(w, r, "/download?"+r.URL.RawQuery, http.StatusSeeOther)
	case r.URL.Path == "/download" && !d.noPage && (q.Get("confirm") != "t" || q.Get("uuid") != "u-1" || d.pages > 0):
		if q.Get("confirm") == "t" {
			d.pages--
		}
		page := d.page
		if page == "" {
			page = strings.NewReplacer("https://drive.usercontent.google.com", "", "5e0c&amp;1", "u-1").Replace(formPage)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, page)
	default:
		d.file(w, r)
	}
}

func (d *fakeDrive) file(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.answers++
	n := d.answers
	d.ranges = append(d.ranges, r.Header.Get("Range"))
	d.mu.Unlock()
	if d.status != 0 && n <= d.statusTimes {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(d.status)
		return
	}
	content := slices.Clone(d.content)
	etag := `"v1"`
	if d.changed && n > 1 {
		etag = `"v2"`
	} else if d.changed {
		content[0] ^= 1
	}
	if n <= d.wrongBytes {
		content[len(content)/2] ^= 0xff
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if !d.noValidators {
		h.Set("ETag", etag)
	}
	if d.hash != "" {
		h.Set("X-Goog-Hash", d.hash)
	}
	if d.encoding != "" {
		h.Set("Content-Encoding", d.encoding)
	}
	start := 0
	status := http.StatusOK
	if s := r.Header.Get("Range"); s != "" && !d.ignoreRange && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == etag) {
		fmt.Sscanf(s, "bytes=%d-", &start)
		if start >= len(content) {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", len(content)))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		if n <= d.wrongRange {
			start /= 2
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(content)-1, len(content)))
		status = http.StatusPartialContent
	}
	body := content[start:]
	if !d.noLength {
		h.Set("Content-Length", fmt.Sprint(len(body)))
	}
	w.WriteHeader(status)
	switch {
	case n <= d.stallTimes:
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case d.dropAfter > 0 && len(body) > d.dropAfter && (d.dropTimes == 0 || n <= d.dropTimes):
		w.Write(body[:d.dropAfter])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	default:
		if d.noLength {
			w.(http.Flusher).Flush()
		}
		w.Write(body)
	}
}

func client(t testing.TB, d *fakeDrive, o Options) *Client {
	t.Helper()
	o.Drive = d.URL + "/uc"
	o.Backoff = time.Millisecond
	if o.Attempts == 0 {
		o.Attempts = 3
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tree returns the files below dir with their content, and empty folders.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		files[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func wantTree(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	got := tree(t, dir)
	for name, data := range want {
		if s, ok := got[name]; !ok {
			t.Errorf("%s is not there", name)
		} else if s != data {
			t.Errorf("%s has other content", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is left over", name)
		}
	}
}

var toy = Item{Name: "toy", Kind: Datasets, Folder: "images_classic", Drive: "ID", Holds: []string{"train", "test"}}

func toyFiles() map[string]string {
	return map[string]string{"train/a.png": noise(300_000), "test/b/c.png": noise(100), "test/d.txt": "d"}
}

// laidOut is where toyFiles go.
func laidOut(files map[string]string) map[string]string {
	out := map[string]string{}
	for name, data := range files {
		out["images_classic/toy/"+name] = data
	}
	return out
}

func TestGet(t *testing.T) {
	content := zipOf(t, toyFiles())
	sum := sha256.Sum256(content)
	md := md5.Sum(content)
	right := "crc32c=AAAAAA==,md5=" + base64.StdEncoding.EncodeToString(md[:])
	sha := hex.EncodeToString(sum[:])
	with := func(change func(it *Item)) Item {
		it := toy
		change(&it)
		return it
	}
	for _, c := range []struct {
		name     string
		faults   faults
		item     Item
		problem  string // in the error; empty for success
		content  []byte // instead of toyFiles
		answers  int    // 0 for any number
		leftOver bool   // of a part
	}{
		{name: "page", answers: 1},
		{name: "no page", faults: faults{noPage: true}, answers: 1},
		{name: "page twice", faults: faults{pages: 1}, answers: 1},
		{name: "page for ever", faults: faults{pages: 100}, problem: "again and again"},
		{name: "all checksums", item: with(func(it *Item) {
			it.SHA256, it.MD5, it.Bytes = sha, hex.EncodeToString(md[:]), int64(len(content))
		}), answers: 1},
		{name: "drops", faults: faults{dropAfter: 70_000}, answers: 5},
		{name: "drops without validators", faults: faults{dropAfter: 70_000, noValidators: true}, answers: 5},
		{name: "drops without page", faults: faults{dropAfter: 70_000, noPage: true}},
		{name: "drops at nothing", faults: faults{dropAfter: 1}, problem: "given up after 3 attempts", answers: 3, leftOver: true},
		{name: "drops once and ignores Range", faults: faults{dropAfter: 70_000, dropTimes: 1, ignoreRange: true}, answers: 2},
		{name: "drops always and ignores Range", faults: faults{dropAfter: 70_000, ignoreRange: true}, problem: "given up", leftOver: true},
		{name: "drops and answers another range", faults: faults{dropAfter: 70_000, dropTimes: 1, wrongRange: 2}, answers: 3},
		{name: "drops and changes", faults: faults{dropAfter: 70_000, dropTimes: 1, changed: true}, answers: 2},
		{name: "no length", faults: faults{noLength: true}, answers: 1},
		{name: "wrong byte once, checksum known", faults: faults{wrongBytes: 1}, item: with(func(it *Item) { it.SHA256 = sha }), answers: 2},
		{name: "wrong byte always, checksum known", faults: faults{wrongBytes: 100}, item: with(func(it *Item) { it.SHA256 = sha }), problem: "SHA-256", answers: 2},
		{name: "wrong byte once, no checksum", faults: faults{wrongBytes: 1}, answers: 2},
		{name: "wrong byte always, no checksum", faults: faults{wrongBytes: 100}, problem: "checksum", answers: 2},
		{name: "wrong MD5", item: with(func(it *Item) { it.MD5 = strings.Repeat("0", 32) }), problem: "MD5"},
		{name: "server's wrong CRC32C", faults: faults{hash: right}, problem: "CRC32C"},
		{name: "wrong size", item: with(func(it *Item) { it.Bytes = 5 }), problem: "5 were expected", answers: 1},
		{name: "wrong size, no length", faults: faults{noLength: true}, item: with(func(it *Item) { it.Bytes = 5 }), problem: "5 bytes", answers: 1},
		{name: "quota", faults: faults{page: quotaPage}, problem: "quota exceeded"},
		{name: "not shared", faults: faults{login: true}, problem: "not shared"},
		{name: "redirect loop", faults: faults{loop: true}, problem: "without end"},
		{name: "busy once", faults: faults{status: 503, statusTimes: 1}, answers: 2},
		{name: "busy always", faults: faults{status: 429, statusTimes: 99}, problem: "429", answers: 3},
		{name: "absent", faults: faults{status: 404, statusTimes: 99, noPage: true}, problem: "404", answers: 1},
		{name: "stalls once", faults: faults{stallTimes: 1}, answers: 2},
		{name: "stalls always", faults: faults{stallTimes: 99}, problem: "sent nothing for", leftOver: true},
		{name: "bad archive", item: with(func(it *Item) { it.Holds = nil }), content: rawZip(t, rawEntry{name: "../a", data: "x"}), problem: "leads out", answers: 1},
		{name: "gzip", faults: faults{encoding: "gzip"}, problem: `encoding "gzip"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			content := content
			if c.content != nil {
				content = c.content
			}
			d := newFakeDrive(t, content, c.faults)
			if c.item.Name == "" {
				c.item = toy
			}
			dir := t.TempDir()
			r, err := client(t, d, Options{Idle: 200 * time.Millisecond}).Get(t.Context(), dir, c.item)
			answers, ranges := d.seen()
			if c.answers > 0 && answers != c.answers {
				t.Errorf("%d answers (%v), want %d", answers, ranges, c.answers)
			}
			if c.problem == "" {
				if err != nil {
					t.Fatal(err)
				}
				if r.There || r.Bytes != int64(len(content)) {
					t.Errorf("result %+v", r)
				}
				wantTree(t, dir, laidOut(toyFiles()))
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.problem) || !strings.Contains(err.Error(), "toy") {
				t.Fatalf("error %v, want one with %q and the name", err, c.problem)
			}
			for name := range tree(t, dir) {
				if !c.leftOver || !strings.HasPrefix(name, "images_classic/toy.zip.part") {
					t.Errorf("%s is left over", name)
				}
			}
		})
	}
}

// A later run goes on where an earlier one has ended, and a third does nothing.
func TestResumeInLaterRun(t *testing.T) {
	content := zipOf(t, toyFiles())
	dir := t.TempDir()
	d := newFakeDrive(t, content, faults{dropAfter: 100_000, dropTimes: 1})
	if _, err := client(t, d, Options{Attempts: 1}).Get(t.Context(), dir, toy); err == nil {
		t.Fatal("the broken transfer was no error")
	}
	steps, err := client(t, d, Options{}).Plan(dir, []Item{toy})
	if err != nil {
		t.Fatal(err)
	}
	if s := steps[0]; s.There || s.Have != 100_000 || s.Total != int64(len(content)) {
		t.Errorf("plan %+v, want 100000 bytes", s)
	}
	if _, err := client(t, d, Options{}).Get(t.Context(), dir, toy); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, laidOut(toyFiles()))
	r, err := client(t, d, Options{}).Get(t.Context(), dir, toy)
	if err != nil || !r.There {
		t.Errorf("third run: %+v, %v", r, err)
	}
	if n, ranges := d.seen(); n != 2 || !slices.Equal(ranges, []string{"", "bytes=100000-"}) {
		t.Errorf("ranges %q", ranges)
	}
}

// A part whose transfer was complete is unpacked without the network.
func TestCompletePart(t *testing.T) {
	d := newFakeDrive(t, zipOf(t, toyFiles()), faults{})
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	c := client(t, d, Options{Progress: &stopAt{stage: "unpack", cancel: cancel}})
	if _, err := c.Get(ctx, dir, toy); err == nil {
		t.Fatal("no error though interrupted")
	}
	got := tree(t, dir)
	if len(got) != 2 || got["images_classic/toy.zip.part"] == "" || got["images_classic/toy.zip.part.json"] == "" {
		t.Errorf("left over: %d files", len(got))
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "images_classic")); len(entries) != 2 {
		t.Errorf("left over: %v", entries)
	}
	if _, err := client(t, d, Options{}).Get(t.Context(), dir, toy); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, laidOut(toyFiles()))
	if n, _ := d.seen(); n != 1 {
		t.Errorf("%d transfers", n)
	}
}

// stopAt interrupts at the first bytes of a stage.
type stopAt struct {
	silent
	stage  string
	cancel func()
	inside bool
}

func (s *stopAt) Begin(stage, _ string, _, _ int64) { s.inside = stage == s.stage }
func (s *stopAt) Advance(int64) {
	if s.inside {
		s.cancel()
	}
}

func TestInterruptedTransfer(t *testing.T) {
	d := newFakeDrive(t, zipOf(t, toyFiles()), faults{stallTimes: 1})
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	c := client(t, d, Options{Progress: &stopAt{stage: "fetch", cancel: cancel}})
	begin := time.Now()
	_, err := c.Get(ctx, dir, toy)
	if err == nil || !strings.Contains(err.Error(), "context canceled") || time.Since(begin) > 5*time.Second {
		t.Fatalf("error %v after %v", err, time.Since(begin))
	}
	for name := range tree(t, dir) {
		if !strings.HasPrefix(name, "images_classic/toy.zip.part") {
			t.Errorf("%s is left over", name)
		}
	}
	if _, err := client(t, d, Options{}).Get(t.Context(), dir, toy); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, laidOut(toyFiles()))
}

// What lies in the way of a part or of its note is not believed.
func TestForeignParts(t *testing.T) {
	content := zipOf(t, toyFiles())
	for name, files := range map[string]map[string]string{
		"no note":         {"toy.zip.part": "PK garbage"},
		"broken note":     {"toy.zip.part": "PK garbage", "toy.zip.part.json": "{"},
		"another source":  {"toy.zip.part": "PK garbage", "toy.zip.part.json": `{"from":"https://elsewhere","total":400000}`},
		"longer than all": {"toy.zip.part": "PK garbage", "toy.zip.part.json": `{"from":"Google Drive ID","total":3}`},
		"done but short":  {"toy.zip.part": "PK garbage", "toy.zip.part.json": `{"from":"Google Drive ID","total":30,"done":true}`},
		"other bytes":     {"toy.zip.part": "PK garbage", "toy.zip.part.json": fmt.Sprintf(`{"from":"Google Drive ID","total":%d,"etag":"\"v1\""}`, len(content))},
		"other version":   {"toy.zip.part": "PK garbage", "toy.zip.part.json": `{"from":"Google Drive ID","total":30,"etag":"\"v0\""}`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "images_classic"), 0o777); err != nil {
				t.Fatal(err)
			}
			for name, data := range files {
				if err := os.WriteFile(filepath.Join(dir, "images_classic", name), []byte(data), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			d := newFakeDrive(t, content, faults{})
			if _, err := client(t, d, Options{}).Get(t.Context(), dir, toy); err != nil {
				t.Fatal(err)
			}
			wantTree(t, dir, laidOut(toyFiles()))
		})
	}
}

// Layout: a folder around the content is dropped, what was there stays.
func TestLayout(t *testing.T) {
	for _, c := range []struct {
		name            string
		archive, before map[string]string
		item            Item
		want            map[string]string
		kept            []string
		problem         string
	}{
		{
			name: "folder of the same name", item: toy,
			archive: map[string]string{"toy/train/a": "1", "toy/test/b": "2", "__MACOSX/toy/._a": "x"},
			want:    map[string]string{"images_classic/toy/train/a": "1", "images_classic/toy/test/b": "2"},
		},
		{
			name: "folders around", item: toy,
			archive: map[string]string{"images_classic/toy/train/a": "1", "images_classic/toy/test/b": "2"},
			want:    map[string]string{"images_classic/toy/train/a": "1", "images_classic/toy/test/b": "2"},
		},
		{
			name: "lists", item: Item{Name: "benchmark_imglist_nac", Kind: Lists, Drive: "ID", Holds: []string{"cifar10"}},
			archive: map[string]string{"benchmark_imglist/cifar10/l.txt": "1"},
			want:    map[string]string{"benchmark_imglist_nac/cifar10/l.txt": "1"},
		},
		{
			name: "checkpoints", item: Item{Name: "net_v1.5", Kind: Checkpoints, Folder: "checkpoints", Drive: "ID"},
			archive: map[string]string{"net_base_default/s0/best.ckpt": "1"},
			want:    map[string]string{"checkpoints/net_v1.5/net_base_default/s0/best.ckpt": "1"},
		},
		{
			name: "checkpoints in a folder of their name", item: Item{Name: "net_v1.5", Kind: Checkpoints, Folder: "checkpoints", Drive: "ID"},
			archive: map[string]string{"net_v1.5/s0/best.ckpt": "1"},
			want:    map[string]string{"checkpoints/net_v1.5/s0/best.ckpt": "1"},
		},
		{
			name: "incomplete before", item: toy,
			before:  map[string]string{"images_classic/toy/train/mine": "0"},
			archive: map[string]string{"train/a": "1", "test/b": "2"},
			want:    map[string]string{"images_classic/toy/train/mine": "0", "images_classic/toy/test/b": "2"},
			kept:    []string{"train"},
		},
		{
			name: "killed before", item: toy,
			before:  map[string]string{"images_classic/.nac-unpack-toy/train/a": "half"},
			archive: map[string]string{"train/a": "1", "test/b": "2"},
			want:    map[string]string{"images_classic/toy/train/a": "1", "images_classic/toy/test/b": "2"},
		},
		{
			name: "other content than expected", item: toy, problem: "has no test",
			archive: map[string]string{"train/a": "1", "tests/b": "2"},
			want:    map[string]string{"images_classic/toy/train/a": "1", "images_classic/toy/tests/b": "2"},
		},
		{
			name: "a file in the way", item: toy, problem: "not a folder",
			before: map[string]string{"images_classic/toy": "a file"},
			want:   map[string]string{"images_classic/toy": "a file"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range c.before {
				name = filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			d := newFakeDrive(t, zipOf(t, c.archive), faults{})
			r, err := client(t, d, Options{}).Get(t.Context(), dir, c.item)
			if c.problem == "" && err != nil || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
				t.Errorf("error %v, want %q", err, c.problem)
			}
			if !slices.Equal(r.Kept, c.kept) {
				t.Errorf("kept %q, want %q", r.Kept, c.kept)
			}
			wantTree(t, dir, c.want)
		})
	}
}

// Weights are checked against the digits in their name, also when they are there.
func TestWeights(t *testing.T) {
	content := []byte(noise(5000))
	sum := sha256.Sum256(content)
	name := "net-" + hex.EncodeToString(sum[:4]) + ".pth"
	d := newFakeDrive(t, content, faults{})
	it := Item{Name: "net", Kind: Weights, Folder: "checkpoints", URL: d.URL + "/models/" + name, SHA256: hex.EncodeToString(sum[:4])}
	dir := t.TempDir()
	for i, there := range []bool{false, true} {
		r, err := client(t, d, Options{}).Get(t.Context(), dir, it)
		if err != nil || r.There != there {
			t.Fatalf("run %d: %+v, %v", i, r, err)
		}
		wantTree(t, dir, map[string]string{"checkpoints/" + name: string(content)})
	}
	target := filepath.Join(dir, "checkpoints", name)
	if err := os.WriteFile(target, content[1:], 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, d, Options{}).Get(t.Context(), dir, it); err == nil || !strings.Contains(err.Error(), target) || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("a wrong file: error %v", err)
	}
	it.SHA256 = "00000000"
	if _, err := client(t, d, Options{}).Get(t.Context(), t.TempDir(), it); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("a wrong transfer: error %v", err)
	}
}

func TestLock(t *testing.T) {
	d := newFakeDrive(t, zipOf(t, toyFiles()), faults{})
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, d, Options{}).Get(t.Context(), dir, toy); err == nil || !strings.Contains(err.Error(), "another nac download") {
		t.Errorf("error %v", err)
	}
	unlock()
	if _, err := client(t, d, Options{}).Get(t.Context(), dir, toy); err != nil {
		t.Error(err)
	}
}

func TestSpace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent", "folder")
	if free, ok := freeSpace(existing(dir)); !ok || free == 0 {
		t.Skipf("free space: %d, %v", free, ok)
	}
	if err := needSpace(dir, 1); err != nil {
		t.Error(err)
	}
	if err := needSpace(dir, 1<<61); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v for 2 EiB", err)
	}
}
