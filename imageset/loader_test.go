package imageset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"
)

// numbered makes n PNG files whose pixels hold their number, and their list.
func numbered(t testing.TB, n int) (List, fstest.MapFS) {
	t.Helper()
	files := fstest.MapFS{}
	list := List{Name: "numbers", FS: files}
	for i := range n {
		m := image.NewNRGBA(image.Rect(0, 0, 8, 8))
		for p := range 64 {
			m.SetNRGBA(p%8, p/8, color.NRGBA{uint8(i), uint8(i >> 8), uint8(p), 255})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("img/%d.png", i)
		files[name] = &fstest.MapFile{Data: b.Bytes()}
		list.Items = append(list.Items, Item{Path: name, Label: i % 7})
	}
	return list, files
}

// asIs makes bytes of 8x8 images: value = byte.
var asIs = Transform{Crop: 8, Std: [3]float32{1. / 255, 1. / 255, 1. / 255}}

func checkBatch(t *testing.T, b *Batch) {
	t.Helper()
	if len(b.Index) != b.N || len(b.Labels) != b.N || len(b.Images) != b.N*3*64 {
		t.Fatalf("lengths %d, %d, %d for N = %d", len(b.Index), len(b.Labels), len(b.Images), b.N)
	}
	for i, at := range b.Index {
		img := b.Images[i*3*64:]
		if int(img[0]+.5) != at&255 || int(img[64]+.5) != at>>8 || int(img[2*64+63]+.5) != 63 || b.Labels[i] != at%7 {
			t.Errorf("image %d of the batch is not image %d of the list: %v, %v, label %d", i, at, img[0], img[64], b.Labels[i])
		}
	}
}

func TestLoaderOrder(t *testing.T) {
	list, _ := numbered(t, 300)
	for _, o := range []LoadOptions{
		{}, {BatchSize: 1}, {BatchSize: 7, Workers: 1}, {BatchSize: 100, Workers: 5, Ahead: 1}, {BatchSize: 1000, Workers: 3, Ahead: 4},
	} {
		for _, release := range []bool{true, false} {
			o.Transform = asIs
			l := Load(context.Background(), list, o)
			next := 0
			for {
				b, err := l.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				checkBatch(t, b)
				for _, at := range b.Index {
					if at != next {
						t.Fatalf("image %d comes where %d should", at, next)
					}
					next++
				}
				if release {
					b.Release()
					b.Release()
				}
			}
			if next != 300 || len(l.Skipped()) != 0 {
				t.Errorf("%+v: %d images, %d skipped", o, next, len(l.Skipped()))
			}
			if _, err := l.Next(); err != io.EOF {
				t.Errorf("after the end: %v", err)
			}
			l.Close()
		}
	}
}

// spoil makes four images of the list bad in different ways.
func spoil(files fstest.MapFS) []int {
	delete(files, "img/0.png")
	files["img/11.png"] = &fstest.MapFile{}
	files["img/12.png"] = &fstest.MapFile{Data: []byte("not an image")}
	files["img/29.png"].Data = files["img/29.png"].Data[:60]
	return []int{0, 11, 12, 29}
}

func TestLoaderSkip(t *testing.T) {
	list, files := numbered(t, 30)
	bad := spoil(files)
	for _, size := range []int{1, 4, 10, 64} {
		l := Load(context.Background(), list, LoadOptions{Transform: asIs, BatchSize: size, OnError: Skip, Workers: 3})
		var got []int
		for {
			b, err := l.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.N == 0 {
				t.Error("an empty batch")
			}
			checkBatch(t, b)
			got = append(got, b.Index...)
			b.Release()
		}
		var want []int
		for i := range 30 {
			if !slices.Contains(bad, i) {
				want = append(want, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("batches of %d: got %v, want %v", size, got, want)
		}
		if skipped := l.Skipped(); len(skipped) != len(bad) {
			t.Errorf("skipped %v", skipped)
		} else {
			for i, err := range skipped {
				if !strings.Contains(err.Error(), fmt.Sprintf("img/%d.png", bad[i])) || !strings.Contains(err.Error(), "numbers") {
					t.Errorf("skipped %d: %v", i, err)
				}
			}
		}
	}
}

func TestLoaderStop(t *testing.T) {
	list, files := numbered(t, 40)
	files["img/17.png"] = &fstest.MapFile{Data: []byte("GIF89a")}
	delete(files, "img/18.png")
	before := runtime.NumGoroutine()
	l := Load(context.Background(), list, LoadOptions{Transform: asIs, BatchSize: 5, Workers: 4})
	n := 0
	var err error
	for {
		var b *Batch
		if b, err = l.Next(); err != nil {
			break
		}
		n += b.N
		b.Release()
	}
	if n != 15 || err == io.EOF || !strings.Contains(err.Error(), "image list numbers: image img/17.png: GIF") {
		t.Errorf("%d images and then %v", n, err)
	}
	if _, again := l.Next(); again != err {
		t.Errorf("then %v", again)
	}
	l.Close()
	waitGoroutines(t, before)

	delete(files, "img/0.png")
	l = Load(context.Background(), list, LoadOptions{Transform: asIs})
	if _, err := l.Next(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func waitGoroutines(t *testing.T, want int) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d goroutines, at first there were %d", runtime.NumGoroutine(), want)
}

func TestLoaderCancel(t *testing.T) {
	list, _ := numbered(t, 200)
	before := runtime.NumGoroutine()
	for stopAfter := range 5 {
		ctx, cancel := context.WithCancel(context.Background())
		l := Load(ctx, list, LoadOptions{Transform: asIs, BatchSize: 8, Workers: 4})
		for range stopAfter {
			if _, err := l.Next(); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		for {
			if _, err := l.Next(); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("after cancelling: %v", err)
				}
				break
			}
		}
	}
	for range 3 {
		l := Load(context.Background(), list, LoadOptions{Transform: asIs, BatchSize: 8, Workers: 4})
		b, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		l.Close()
		checkBatch(t, b) // still the consumer's
		b.Release()
		if _, err := l.Next(); err == nil || err == io.EOF {
			t.Errorf("after closing: %v", err)
		}
	}
	waitGoroutines(t, before)
}

// countFS counts the files opened.
type countFS struct {
	fstest.MapFS
	opened atomic.Int64
}

func (c *countFS) Open(name string) (fs.File, error) {
	c.opened.Add(1)
	return c.MapFS.Open(name)
}

// TestLoaderBounded checks that no more is decoded ahead than Ahead allows.
func TestLoaderBounded(t *testing.T) {
	list, files := numbered(t, 200)
	counter := &countFS{MapFS: files}
	list.FS = counter
	l := Load(context.Background(), list, LoadOptions{Transform: asIs, BatchSize: 10, Workers: 4, Ahead: 2})
	defer l.Close()
	for batch := range 3 {
		time.Sleep(50 * time.Millisecond) // time to run too far
		// A file is opened once to be looked at (Stat) and once to be read.
		if n := counter.opened.Load(); n > int64(2*10*(batch+2)) {
			t.Errorf("%d openings before batch %d is asked for", n, batch)
		}
		b, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
}

func TestLoaderOptions(t *testing.T) {
	list, _ := numbered(t, 3)
	for _, o := range []LoadOptions{
		{},
		{Transform: asIs, BatchSize: -1},
		{Transform: asIs, Workers: -1},
		{Transform: asIs, Ahead: -1},
		{Transform: asIs, MaxPixels: -1},
		{Transform: asIs, OnError: 9},
		{Transform: Transform{Std: asIs.Std}},
		{Transform: Transform{Crop: 8}},
		{Transform: asIs, MaxPixels: 63},
	} {
		l := Load(context.Background(), list, o)
		if _, err := l.Next(); err == nil || err == io.EOF {
			t.Errorf("%+v: %v", o, err)
		}
		l.Close()
	}
	// A transform without a size of its own.
	o := LoadOptions{Transform: Transform{Std: asIs.Std}, Height: 8, Width: 8}
	l := Load(context.Background(), list, o)
	if b, err := l.Next(); err != nil || b.N != 3 {
		t.Errorf("%v, %v", b, err)
	}
	l.Close()
	o.Width = 9
	l = Load(context.Background(), list, o)
	if _, err := l.Next(); err == nil || !strings.Contains(err.Error(), "img/0.png of 8x8") {
		t.Errorf("a wrong size: %v", err)
	}
	if l := Load(context.Background(), List{}, LoadOptions{Transform: asIs}); l.err == nil {
		if _, err := l.Next(); err != io.EOF {
			t.Errorf("an empty list: %v", err)
		}
	}
	if got := (LoadOptions{Transform: asIs, BatchSize: 10, Ahead: 2}).MemoryBytes(); got != 4*3*64*10*4 {
		t.Errorf("memory %d", got)
	}
}
