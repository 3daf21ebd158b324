// Package download fetches data sets, lists and checkpoints by name and lays them
// out as package openood reads them:
//
//	DIR/benchmark_imglist/cifar10/test_cifar10.txt
//	DIR/images_classic/cifar10/test/...
//	DIR/images_largescale/imagenet_1k/val/...
//	DIR/checkpoints/cifar10_res18_v1.5/...
//	DIR/checkpoints/resnet50-0676ba61.pth
//
// What is known by name is data: catalogue.yaml. A transfer that breaks off goes on
// where it ended, in the same run or a later one: until it is complete its bytes
// are in a file .part beside the place where it goes. An archive is unpacked into a
// temporary folder that is then renamed, so a set is whole or absent.
package download

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Options are how a Client works; the zero value is what most want.
type Options struct {
	Settings Settings
	// Progress is told how far things are; nil means nobody.
	Progress Progress
	// Attempts is how many transfers may fail one after the other without getting
	// on; 0 means 8. Backoff is the wait after the first, doubled after each further
	// one; 0 means a second.
	Attempts int
	Backoff  time.Duration
	// Idle is how long a server may send nothing; 0 means a minute.
	Idle time.Duration
	// Limits bound archives; zero means DefaultLimits.
	Limits Limits
	// Drive is the address where Google Drive answers; empty means the real one.
	Drive string
}

// Progress is told about one item after the other.
type Progress interface {
	// Begin is called before a stage ("fetch", "check", "unpack") of which done of total bytes
	// are there already; total is -1 if it is unknown. End is called after it, however
	// it ends.
	Begin(stage, item string, done, total int64)
	Advance(bytes int64)
	End()
	// Retry is called before a wait after a transfer that failed.
	Retry(item string, err error, wait time.Duration)
}

// Client fetches items.
type Client struct {
	settings Settings
	progress Progress
	attempts int
	backoff  time.Duration
	idle     time.Duration
	limits   Limits
	drive    string
	http     *http.Client
}

// New returns a client. Invalid settings are an error.
func New(o Options) (*Client, error) {
	if err := o.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("download: settings: %w", err)
	}
	c := &Client{
		settings: o.Settings, progress: o.Progress, attempts: o.Attempts, backoff: o.Backoff,
		idle: o.Idle, limits: o.Limits, drive: o.Drive,
	}
	if c.progress == nil {
		c.progress = silent{}
	}
	if c.attempts <= 0 {
		c.attempts = 8
	}
	if c.backoff <= 0 {
		c.backoff = time.Second
	}
	if c.idle <= 0 {
		c.idle = time.Minute
	}
	if c.limits == (Limits{}) {
		c.limits = DefaultLimits
	}
	if c.drive == "" {
		c.drive = "https://drive.google.com/uc"
	}
	jar, err := cookiejar.New(nil) // Drive's older pages confirm by a cookie
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{Jar: jar, CheckRedirect: checkRedirect}
	return c, nil
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return permanentf("the server redirects without end")
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return permanentf("the server redirects to an address without encryption")
	case req.URL.Host == "accounts.google.com":
		return permanentf("Google Drive: the file is not shared with everybody")
	}
	return nil
}

type silent struct{}

func (silent) Begin(string, string, int64, int64) {}
func (silent) Advance(int64)                      {}
func (silent) End()                               {}
func (silent) Retry(string, error, time.Duration) {}

// Step is what is to be done for an item.
type Step struct {
	Item Item // as the settings want it
	From string
	Path string // where it goes
	// There tells that it is complete and nothing is to be done. Else Have bytes of
	// Total have been transferred; Total is -1 if it is unknown.
	There       bool
	Have, Total int64
}

// Plan returns what Get would do for the items, without the network.
func (c *Client) Plan(dir string, items []Item) ([]Step, error) {
	var steps []Step
	for _, it := range items {
		it, err := c.settings.apply(it)
		if err != nil {
			return nil, fmt.Errorf("download: %w", err)
		}
		s := Step{Item: it, From: it.place(), Path: filepath.Join(dir, filepath.FromSlash(it.Path())), Total: -1}
		if it.Bytes > 0 {
			s.Total = it.Bytes
		}
		if s.There, err = complete(s.Path, it); err != nil {
			return nil, fmt.Errorf("download: %s: %w", it.Name, err)
		}
		if n, size, ok := usable(partPath(s.Path, it), it.place()); ok && !s.There {
			s.Have = size
			if n.Total >= 0 {
				s.Total = n.Total
			}
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// partPath is where an item's bytes are until it is complete.
func partPath(target string, it Item) string {
	return filepath.Join(filepath.Dir(target), it.file()+".part")
}

// complete tells whether an item is at its place: a file, or a folder that has the
// entries that the item needs.
func complete(target string, it Item) (bool, error) {
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !it.archive() {
		if !info.Mode().IsRegular() {
			return false, fmt.Errorf("%s is not a file", target)
		}
		return true, nil
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%s is not a folder", target)
	}
	if len(it.Holds) > 0 {
		return len(missing(target, it)) == 0, nil
	}
	entries, err := os.ReadDir(target)
	return len(entries) > 0, err
}

// missing returns what the item needs and target has not.
func missing(target string, it Item) []string {
	var names []string
	for _, name := range it.Holds {
		if _, err := os.Stat(filepath.Join(target, name)); err != nil {
			names = append(names, name)
		}
	}
	return names
}

// Result is what Get has done.
type Result struct {
	Path string
	// There tells that the item was complete already.
	There bool
	Bytes int64 // of the file that was transferred
	// Kept are entries of an incomplete folder that were there already and have been
	// left as they were.
	Kept []string
}

// Get brings an item to its place below dir. If it is complete nothing is done;
// a file of which a checksum is known is checked even so. What an earlier Get
// has transferred is used. On an error, and when ctx ends, only files .part and .part.json are
// left, from which the next Get goes on. One Get at a time works below dir;
// another process's is an error.
func (c *Client) Get(ctx context.Context, dir string, it Item) (Result, error) {
	r, err := c.bring(ctx, dir, it)
	if err != nil {
		return r, fmt.Errorf("download: %s: %w", it.Name, err)
	}
	return r, nil
}

func (c *Client) bring(ctx context.Context, dir string, it Item) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	it, err := c.settings.apply(it)
	if err != nil {
		return Result{}, err
	}
	target := filepath.Join(dir, filepath.FromSlash(it.Path()))
	r := Result{Path: target}
	if r.There, err = complete(target, it); err != nil {
		return r, err
	}
	if r.There {
		if it.archive() {
			return r, nil
		}
		err := c.verify(ctx, it, note{}, target)
		if errors.As(err, new(corruptError)) {
			err = fmt.Errorf("%s is there but is not the right file; remove it to fetch it: %w", target, err)
		}
		return r, err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return r, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return r, err
	}
	defer unlock()

	p, err := openPart(partPath(target, it), it.place())
	if err != nil {
		return r, err
	}
	for again := false; ; again = true {
		if err = c.fetch(ctx, it, p); err != nil {
			return r, describe(err, it)
		}
		r.Bytes = p.size
		if err = c.verify(ctx, it, p.note, p.path); err == nil {
			r.Kept, err = c.install(ctx, it, p, target)
		}
		if errors.As(err, new(refusedError)) {
			// A later run shall see whether the server has a better one.
			return r, errors.Join(describe(err, it), p.discard())
		}
		if !errors.As(err, new(corruptError)) {
			break
		}
		// Bytes that are wrong are of no use to a later run either.
		if derr := p.discard(); derr != nil {
			return r, errors.Join(err, derr)
		}
		if again {
			return r, describe(err, it)
		}
		c.progress.Retry(it.Name, err, 0)
	}
	if err != nil {
		return r, err
	}
	if err := p.discard(); err != nil {
		return r, err
	}
	if lacks := missing(target, it); it.archive() && len(lacks) > 0 {
		return r, fmt.Errorf("%s has been unpacked but has no %s: the archive is laid out otherwise than expected", target, strings.Join(lacks, ", "))
	}
	return r, nil
}

// describe adds the source to an error of a transfer.
func describe(err error, it Item) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("from %s: %w", it.place(), err)
}

const lockName = ".nac-download.lock"

// lock keeps other processes from working below dir.
func lock(dir string) (unlock func(), err error) {
	name := filepath.Join(dir, lockName)
	var l *flock.Flock
	for {
		l = flock.New(name)
		ok, err := l.TryLock()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("another nac download is at work in %s", dir)
		}
		// A lock of a file that another process has just removed is worth nothing.
		held, herr := l.Stat()
		there, terr := os.Stat(name)
		if herr == nil && terr == nil && os.SameFile(held, there) {
			break
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		if herr != nil || terr != nil && !errors.Is(terr, fs.ErrNotExist) {
			return nil, errors.Join(herr, terr)
		}
	}
	return func() {
		if runtime.GOOS == "windows" { // it removes no open file
			l.Close()
			os.Remove(l.Path())
			return
		}
		os.Remove(l.Path()) // while no other process can have it
		l.Close()
	}, nil
}

// install brings a complete part to its place.
func (c *Client) install(ctx context.Context, it Item, p *part, target string) (kept []string, err error) {
	if !it.archive() {
		return nil, os.Rename(p.path, target)
	}
	temp := filepath.Join(filepath.Dir(target), ".nac-unpack-"+it.Name)
	if err := os.RemoveAll(temp); err != nil { // of a run that was killed
		return nil, err
	}
	defer os.RemoveAll(temp)
	if err := os.Mkdir(temp, 0o777); err != nil {
		return nil, err
	}
	if err := c.unzip(ctx, it, p.path, temp); err != nil {
		return nil, err
	}
	from := contents(temp, it)
	syncDisk(from)
	// An empty folder may stand in the way.
	if err := os.Remove(target); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil, os.Rename(from, target)
	}
	// The user's own files are there: add what is lacking, touch nothing.
	entries, err := os.ReadDir(from)
	if err != nil {
		return nil, err
	}
	// What tells that the item is complete comes last, should this be cut short.
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int {
		return cmp.Compare(slices.Index(it.Holds, a.Name()), slices.Index(it.Holds, b.Name()))
	})
	for _, e := range entries {
		to := filepath.Join(target, e.Name())
		if p.exists(to) {
			kept = append(kept, e.Name())
			continue
		}
		if err := os.Rename(filepath.Join(from, e.Name()), to); err != nil {
			return kept, err
		}
	}
	return kept, nil
}

func (c *Client) unzip(ctx context.Context, it Item, archive, dir string) error {
	begun := false
	defer func() {
		if begun {
			c.progress.End()
		}
	}()
	return Unzip(ctx, archive, dir, c.limits, func(wrote, total int64) {
		if !begun {
			begun = true
			c.progress.Begin("unpack", it.Name, 0, total)
		}
		c.progress.Advance(wrote)
	})
}

// contents returns the folder in temp that holds the item's content: temp, or one in
// which all of it is wrapped, if that has the entries that the item needs or
// the item's name.
func contents(temp string, it Item) string {
	dir := temp
	for {
		if len(it.Holds) > 0 && len(missing(dir, it)) < len(it.Holds) {
			return dir
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || !entries[0].IsDir() {
			return temp
		}
		dir = filepath.Join(dir, entries[0].Name())
		if len(it.Holds) == 0 && entries[0].Name() == it.Name {
			return dir
		}
	}
}
