package main

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nac/download"
	"nac/imageset"
	"nac/openood"
)

// mirror serves archives by name, and settings that lead to it.
func mirror(t *testing.T, archives map[string]map[string]string) (settings string) {
	t.Helper()
	mux := http.NewServeMux()
	for name, files := range archives {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for file, data := range files {
			f, err := w.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		mux.HandleFunc("/m/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/zip")
			w.Write(b.Bytes())
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	settings = filepath.Join(t.TempDir(), "mirrors.yaml")
	text := fmt.Sprintf("mirrors: {lists: %[1]s/m/, datasets: %[1]s/m, checkpoints: %[1]s/m, weights: %[1]s/m}\n", server.URL)
	if err := os.WriteFile(settings, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return settings
}

// The folder that "nac download cifar-10" makes is the one that "nac bench cifar10
// --data" reads.
func TestDownloadBenchmark(t *testing.T) {
	lists := map[string]string{}
	add := func(list string, lines ...string) {
		lists["benchmark_imglist/cifar10/"+list+".txt"] = strings.Join(lines, "\n") + "\n"
	}
	add("train_cifar10", "cifar10/train/cat/1.png 3")
	add("val_cifar10", "cifar10/test/cat/1.png 3")
	add("test_cifar10", "cifar10/test/cat/2.png 3")
	add("val_tin", "tin/val/a/1.png -1")
	add("test_tin", "tin/val/a/2.png -1")
	add("test_cifar100", "cifar100/test/a/1.png -1")
	add("test_mnist", "mnist/train/1.png -1", "mnist/test/1.png -1")
	add("test_svhn", "svhn/test/1.png -1")
	add("test_texture", "texture/banded/1.png -1")
	add("test_places365", "places365/airfield/1.png -1")
	for _, b := range []string{"cifar100", "imagenet", "imagenet200"} {
		lists["benchmark_imglist/"+b+"/x.txt"] = "x/y.png 0\n"
	}
	settings := mirror(t, map[string]map[string]string{
		"benchmark_imglist.zip": lists,
		"cifar10.zip":           {"train/cat/1.png": "x", "test/cat/1.png": "x", "test/cat/2.png": "x"},
		"cifar100.zip":          {"cifar100/train/a/1.png": "x", "cifar100/test/a/1.png": "x"},
		"tin.zip":               {"val/a/1.png": "x", "val/a/2.png": "x"},
		"mnist.zip":             {"train/1.png": "x", "test/1.png": "x"},
		"svhn.zip":              {"test/1.png": "x"},
		"texture.zip":           {"banded/1.png": "x"},
		"places365.zip":         {"airfield/1.png": "x"},
	})
	dir := filepath.Join(t.TempDir(), "data")
	args := []string{"download", "cifar-10", "--dest", dir, "--settings", settings}

	code, stdout, stderr := call(t, append(args, "--dry-run")...)
	if code != exitOK || stderr != "" || !strings.Contains(stdout, "8 of 8 to be fetched") || !strings.Contains(stdout, "/m/places365.zip") {
		t.Errorf("--dry-run: exit code %d, %q, %q", code, stdout, stderr)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("--dry-run made the folder")
	}
	code, stdout, stderr = call(t, args...)
	if code != exitOK || stderr != "" || strings.Count(stdout, "\n") != 8 {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	b, err := openood.Lookup("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	d, err := openood.Open(t.Context(), b, openood.Layout{Dir: dir}, imageset.LoadOptions{}, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Absent) > 0 || len(d.Near) != 2 || len(d.Far) != 4 {
		t.Errorf("absent %v, %d near, %d far", d.Absent, len(d.Near), len(d.Far))
	}
	code, stdout, stderr = call(t, args...)
	if code != exitOK || stderr != "" || strings.Count(stdout, "is there already") != 8 {
		t.Errorf("again: exit code %d, %q, %q", code, stdout, stderr)
	}
	if code, stdout, _ = call(t, append(args, "--dry-run")...); code != exitOK || !strings.Contains(stdout, "0 of 8 to be fetched") {
		t.Errorf("--dry-run again: exit code %d, %q", code, stdout)
	}
}

// Every set of every benchmark is in the group of its name.
func TestDownloadGroupsCoverBenchmarks(t *testing.T) {
	for group, benchmark := range map[string]string{
		"cifar-10": "cifar10", "cifar-100": "cifar100", "imagenet-200": "imagenet200", "imagenet-1k": "imagenet",
	} {
		b, err := openood.Lookup(benchmark)
		if err != nil {
			continue // not a benchmark of this version
		}
		items, err := download.Select(group)
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]bool{}
		for _, it := range items {
			has[it.Name] = true
			has[it.Name+"s"] = true // texture is called textures in lists of ImageNet
		}
		if !has["benchmark_imglist"] {
			t.Errorf("%s has no lists", group)
		}
		for _, s := range append(b.Near, b.Far...) {
			if !has[s.Name] {
				t.Errorf("%s lacks %s", group, s.Name)
			}
		}
	}
}

func TestDownloadFailures(t *testing.T) {
	settings := mirror(t, map[string]map[string]string{"tin.zip": {"val/a/1.png": "x"}, "svhn.zip": {"../evil": "x"}})
	dir := t.TempDir()
	code, stdout, stderr := call(t, "download", "mnist", "svhn", "tin", "--dest", dir, "--settings", settings)
	if code != exitFailure || !strings.Contains(stdout, "tin  ") || strings.Count(stdout, "failed") != 2 {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	for _, s := range []string{"mnist", "404", "svhn", "leads out"} {
		if !strings.Contains(stderr, s) {
			t.Errorf("%q does not say %q", stderr, s)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "images_classic", "tin", "val", "a", "1.png")); err != nil {
		t.Error(err)
	}

	for args, says := range map[string]string{
		"download":                                 "--list",
		"download nosuch":                          "nosuch",
		"download cifar":                           "cifar-10, cifar-100, cifar10",
		"download tin --list --dry-run":            "exclude",
		"download tin --dest=":                     "--dest",
		"download tin --settings " + dir + "/none": "none",
	} {
		code, stdout, stderr := call(t, strings.Fields(args)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("nac %s: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestDownloadList(t *testing.T) {
	code, stdout, stderr := call(t, "download", "--list")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	for _, name := range downloadNames() {
		if !strings.Contains(stdout, " "+name+" ") {
			t.Errorf("--list has no %s", name)
		}
	}
	code, stdout, _ = call(t, "download", "--list", "cifar-100")
	if code != exitOK || !strings.Contains(stdout, "places365") || strings.Contains(stdout, "ninco") {
		t.Errorf("--list cifar-100: exit code %d, %s", code, stdout)
	}
}

func TestDownloadInterrupted(t *testing.T) {
	settings := mirror(t, map[string]map[string]string{"tin.zip": {"val/a/1.png": "x"}})
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"download", "tin", "--dest", dir, "--settings", settings}, &stdout, &stderr)
	if code != exitInterrupted || stderr.String() != "nac: interrupted\n" || stdout.Len() > 0 {
		t.Errorf("exit code %d, %q, %q", code, stdout.String(), stderr.String())
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}
