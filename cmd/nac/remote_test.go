package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"nac/quickstart"
	"nac/remote"
)

// objectStore is an S3-compatible server on this machine, with one bucket.
func objectStore(t *testing.T) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("data"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_REGION", "us-east-1")
}

func store(t *testing.T, file, name string) {
	t.Helper()
	if err := remote.Store(t.Context(), file, name); err != nil {
		t.Fatal(err)
	}
}

// fetched returns an object.
func fetched(t *testing.T, name string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "object")
	if err := remote.Fetch(t.Context(), name, file); err != nil {
		t.Fatal(err)
	}
	return read(t, file)
}

// Lists, images, shards, detectors and scores in a bucket: the results are those of files.
func TestObjectStore(t *testing.T) {
	objectStore(t)
	o := ownData(t)
	dir := t.TempDir()
	list := o.part(t, "main_train_fashion", 0, 60)
	store(t, list, "s3://data/lists/train.txt")
	for _, line := range strings.Split(strings.TrimSpace(string(read(t, list))), "\n") {
		path := line[:strings.LastIndexByte(line, ' ')]
		store(t, filepath.Join(o.images, path), "s3://data/images/"+path)
	}
	fit := func(id, root, out string, more ...string) {
		ok(t, append([]string{"fit", "--model", o.model, "--arch", quickstart.Arch, "--detector", "msp", "--fpr", "0.1",
			"--mean", "0.2752,0.2752,0.2752", "--std", "0.3336,0.3336,0.3336", "--id", id, "--root", root, "-o", out}, more...)...)
	}
	whole := filepath.Join(dir, "whole.nac")
	fit(list, o.images, whole)
	for i := range 2 {
		for range 2 { // done again, it is found done
			fit("s3://data/lists/train.txt", "s3://data/images", fmt.Sprintf("s3://data/shards/%d", i), "--shard", fmt.Sprintf("%d/2", i))
		}
	}
	ok(t, "merge", "s3://data/shards/0", "s3://data/shards/1", "-o", "s3://data/detector.nac")
	// The names of calibration images are addresses; all else is the same.
	got := bytes.ReplaceAll(fetched(t, "s3://data/detector.nac"), []byte("s3://data/images/"), []byte(o.images+"/"))
	tail := func(b []byte) []byte { return b[bytes.LastIndex(b, []byte("}"))+1:] }
	if want := read(t, whole); !bytes.Equal(tail(got), tail(want)) {
		t.Error("the detector is another than that of files")
	}
	for i := range 2 {
		ok(t, "score", "s3://data/detector.nac", "s3://data/lists/train.txt", "--root", "s3://data/images",
			"--shard", fmt.Sprintf("%d/2", i), "--out", fmt.Sprintf("s3://data/scores/%d.shard", i))
	}
	ok(t, "merge", "s3://data/scores/1.shard", "s3://data/scores/0.shard", "-o", "s3://data/scores.csv")
	one := filepath.Join(dir, "one.csv")
	ok(t, "score", whole, list, "--root", o.images, "--out", one)
	if got := bytes.ReplaceAll(fetched(t, "s3://data/scores.csv"), []byte("s3://data/images/"), []byte(o.images+"/")); !bytes.Equal(got, read(t, one)) {
		t.Error("the scores are others than those of files")
	}

	// HTTP serves lists and images too.
	files := httptest.NewServer(http.FileServer(http.Dir(o.images)))
	defer files.Close()
	overHTTP := filepath.Join(dir, "http.csv")
	ok(t, "score", whole, list, "--root", files.URL, "--out", overHTTP)
	if got := bytes.ReplaceAll(read(t, overHTTP), []byte(files.URL+"/"), []byte(o.images+"/")); !bytes.Equal(got, read(t, one)) {
		t.Error("the scores over HTTP are others than those of files")
	}
}

// What is not there, or cannot be reached, is an error in bounded time that names it.
func TestObjectStoreRefuses(t *testing.T) {
	objectStore(t)
	o := ownData(t)
	dir := t.TempDir()
	d := filepath.Join(dir, "d.nac")
	list := o.part(t, "main_train_fashion", 0, 40)
	o.fit(t, d, "--id", list, "--detector", "msp", "--fpr", "0.2")
	refused := func(what, says string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var out, errs bytes.Buffer
		code := run(ctx, args, &out, &errs)
		if code == exitOK || code == exitPartial || ctx.Err() != nil || !strings.Contains(errs.String(), says) {
			t.Errorf("%s: exit code %d, %v, %q does not say %q", what, code, ctx.Err(), errs.String(), says)
		}
	}
	refused("an absent object", "s3://data/absent.nac", "score", "s3://data/absent.nac", list)
	refused("an absent bucket", "s3://nothere/list.txt", "score", d, "s3://nothere/list.txt")
	refused("writing to http", "can only be read", "score", d, list, "--root", o.images, "--out", files(t))
	if _, err := os.Stat(filepath.Join(dir, "absent.nac")); err == nil {
		t.Error("a file of nothing")
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	refused("a server that cannot be reached", "s3://data/list.txt", "score", d, "s3://data/list.txt")
	refused("an output that cannot be reached", "s3://data/out.csv", "score", d, list, "--out", "s3://data/out.csv")
	t.Setenv("AWS_ENDPOINT_URL", "nonsense")
	refused("no address", "AWS_ENDPOINT_URL", "score", d, "s3://data/list.txt")
}

// files is the address of an empty server.
func files(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return server.URL + "/out.csv"
}
