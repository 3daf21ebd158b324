// Package shareddata finds the reference numbers and real images that tests
// compare with. They are not part of the repository: their place is taken from
// the environment variable NAC_SHARED, default ../shared beside the repository.
package shareddata

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Path returns the path of a file or folder below the shared data folder. When
// it is absent the test is skipped, naming what was looked for; with CI=true it
// fails instead, so that a check which matters cannot vanish unseen.
func Path(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(append([]string{root()}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		missing(t, p)
	}
	return p
}

// Unpacked returns a folder in which the shared images, lists and checkpoints
// are laid out as OpenOOD lays them out. It is made once per user and kept in
// the temporary folder, keyed by where the archives lie.
func Unpacked(t testing.TB) string {
	t.Helper()
	script := Path(t, "data", "unpack.sh")
	abs, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(os.TempDir(), "nac-shared-"+key(abs))
	done := filepath.Join(dir, ".complete")
	if _, err := os.Stat(done); err == nil {
		return dir
	}
	// Packages' tests run at once: unpack aside and rename; the first one wins.
	tmp, err := os.MkdirTemp(os.TempDir(), "nac-shared-unpack-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if out, err := exec.Command("bash", abs, tmp).CombinedOutput(); err != nil {
		t.Fatalf("unpacking %s: %v\n%s", abs, err, out)
	}
	if err := os.WriteFile(filepath.Join(tmp, ".complete"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, again := os.Stat(done); again != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func root() string {
	if dir := os.Getenv("NAC_SHARED"); dir != "" {
		return dir
	}
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return filepath.Join("..", "shared")
	}
	return filepath.Join(filepath.Dir(file), "..", "..", "..", "shared")
}

func missing(t testing.TB, p string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is absent; set NAC_SHARED to the folder that holds the reference numbers", p)
	}
	t.Skipf("%s is absent; set NAC_SHARED to the folder that holds the reference numbers", p)
}

func key(s string) string {
	// FNV-1a, so that two checkouts with their own data do not share a folder.
	h := uint64(0xcbf29ce484222325)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	const hex = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[i] = hex[h>>(60-4*i)&15]
	}
	return string(b[:])
}
