package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nac/arch"
	"nac/detector"
)

// call runs the program as a user would.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestUsageErrors(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		says []string
	}{
		{"nosuch", []string{"nosuch"}},
		{"benc", []string{"Did you mean this? bench"}},
		{"--nosuch", []string{"--nosuch"}},
		{"bench", []string{"cifar10, cifar100, imagenet200, imagenet, fashion"}},
		{"bench cifar11", []string{"cifar11", "cifar10, cifar100, imagenet200, imagenet, fashion"}},
		{"bench cifar10 cifar100", []string{"one benchmark"}},
		{"bench cifar10", []string{"--checkpoint", "training runs"}},
		{"bench cifar10 --checkpoint " + full, []string{full, "s0, s1"}},
		{"bench cifar10 --checkpoint " + full + " --runs s0", []string{"s0"}},
		{"bench cifar10 --checkpoint c --runs s0", []string{"--runs", "c is none"}},
		{"bench cifar10 --checkpoint c --data d --fsood=cifar10d", []string{"cifar10d", "cifar10c"}},
		{"bench fashion --checkpoint c --data d --fsood", []string{"--fsood", "fashion"}},
		{"bench imagenet --arch vit-c --checkpoint c --data d", []string{"vit_c", "resnet50"}},
		{"split", []string{"cifar10, cifar100"}},
		{"split cifar11 --data d", []string{"cifar11", "imagenet200"}},
		{"split cifar10", []string{"--data"}},
		{"split cifar10 --data d --images 0", []string{"--images"}},
		{"bench cifar10 --arch vgg", []string{"vgg", "resnet20, resnet32"}},
		{"bench cifar10 --arch resnet20", []string{"--checkpoint"}},
		{"bench cifar10 --arch resnet20 --checkpoint c", []string{"--data"}},
		{"bench cifar10 --arch resnet20 --checkpoint c --data d --mean 0.5,0.5,0.5", []string{"--std"}},
		{"bench cifar10 --arch resnet20 --checkpoint c --data d --mean 0.5 --std 0.5", []string{"three"}},
		{"bench cifar10 --arch resnet20 --checkpoint c --data d --mean 0,0,0 --std 1,0,1", []string{"channel 1"}},
		{"bench cifar10 --arch resnet20 --checkpoint c --data d --normalize cifar", []string{"cifar10", "imagenet"}},
		{"bench cifar10 --arch resnet20 --checkpoint c --data d --normalize cifar10 --mean 0,0,0 --std 1,1,1", []string{"leave out"}},
		{"bench cifar10 --arch resnet20 --checkpoint c --data d --on-error ask", []string{"ask", "stop, skip"}},
		{"quickstart now", []string{"now"}},
		{"quickstart --detectors msp,oracle", []string{"oracle", "nac, nac_auto, nac_fusion, a"}},
		{"quickstart --detectors msp,msp", []string{"twice"}},
		{"quickstart --detectors ,", []string{"--detectors"}},
		{"quickstart --layers avgpool,layer9", []string{"layer9", "avgpool, layer3, layer2, layer1"}},
		{"quickstart --layers avgpool,avgpool", []string{"twice"}},
		{"quickstart --M 1", []string{"M = 1"}},
		{"quickstart --M 51", []string{"50 or 52"}},
		{"quickstart --O 0", []string{"O = 0"}},
		{"quickstart --alpha nan", []string{"alpha"}},
		{"quickstart --alpha steep", []string{"steep"}},
		{"quickstart --alpha layer9=1", []string{"layer9", "avgpool"}},
		{"quickstart --state z*g", []string{"z*g", "sigmoid(o*g_kl)"}},
		{"quickstart --fusion nac,oracle", []string{"--fusion", "oracle", "nac, nac_auto"}},
		{"quickstart --temperature 0", []string{"temperature"}},
		{"quickstart --temperature -1", []string{"temperature"}},
		{"quickstart --settings " + filepath.Join(full, "absent.yaml"), []string{"absent.yaml"}},
		{"quickstart --batch 0", []string{"--batch", "1 to"}},
		{"quickstart --batch 1000000000", []string{"--batch", "4096"}},
		{"quickstart --workers -1", []string{"--workers"}},
		{"quickstart --images -1", []string{"--images"}},
		{"quickstart --seed -1", []string{"--seed"}},
		{"quickstart --kernel sse2", []string{"sse2", "portable"}},
		{"quickstart --keep " + full, []string{"not empty"}},
		{"fit", []string{"--model"}},
		{"fit --model m.onnx", []string{"--id"}},
		{"fit --model m.onnx --id d", []string{"--out"}},
		{"fit --model m.pth --id d -o d.nac", []string{"--arch", "resnet20"}},
		{"fit --model m.onnx --id d -o d.nac --detector oracle", []string{"oracle", "msp"}},
		{"fit --model m.onnx --id d -o d.nac --fpr 1", []string{"--fpr"}},
		{"fit --model m.onnx --id d -o d.nac --images 0", []string{"--images"}},
		{"fit --model m.onnx --id d -o d.nac --transform cifar", []string{"cifar", "imagenet"}},
		{"fit --model m.onnx --id d -o d.nac --mean 0,0,0", []string{"--std"}},
		{"fit --model m.onnx --id d -o d.nac --filter sinc", []string{"sinc"}},
		{"fit --model m.onnx --id d -o " + filepath.Join(full, "absent", "d.nac"), []string{"absent"}},
		{"merge", []string{"two"}},
		{"merge a.nac b.nac", []string{"--out"}},
		{"score d.nac", []string{"images"}},
		{"score d.nac x --format xml", []string{"xml", "jsonl"}},
		{"score d.nac x --fpr 2", []string{"--fpr"}},
		{"score d.nac - x", []string{"-"}},
		{"layers --arch resnet20", []string{"--checkpoint"}},
		{"layers", []string{"--arch", "resnet20"}},
		{"detectors all", []string{"all"}},
	} {
		code, stdout, stderr := call(t, strings.Fields(c.args)...)
		if code != exitUsage {
			t.Errorf("nac %s: exit code %d, want %d", c.args, code, exitUsage)
		}
		if stdout != "" {
			t.Errorf("nac %s: writes to stdout: %s", c.args, stdout)
		}
		if !strings.HasPrefix(stderr, "nac: ") || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "--help") {
			t.Errorf("nac %s: stderr is %q, want one line that begins with \"nac: \" and leads to --help", c.args, stderr)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr, s) {
				t.Errorf("nac %s: %q does not say %q", c.args, stderr, s)
			}
		}
	}
}

func TestHelpAndTables(t *testing.T) {
	for _, c := range []struct {
		args string
		says []string
	}{
		{"", []string{"nac quickstart", "bench", "layers"}},
		{"--help", []string{"nac quickstart"}},
		{"bench --help", []string{"--normalize imagenet", "benchmark_imglist", "--on-error", "alpha: 1000"}},
		{"quickstart --help", []string{"--keep"}},
		{"layers --help", []string{"--checkpoint"}},
		{"detectors", detector.Keys()},
		{"arch", arch.Names()},
		{"version", []string{"go1.", "portable"}},
	} {
		code, stdout, stderr := call(t, strings.Fields(c.args)...)
		if code != exitOK || stderr != "" {
			t.Errorf("nac %s: exit code %d, stderr %q", c.args, code, stderr)
		}
		for _, s := range c.says {
			if !strings.Contains(stdout, s) {
				t.Errorf("nac %s does not print %q", c.args, s)
			}
		}
	}
}

func TestOneLine(t *testing.T) {
	if got, want := oneLine("a\nb:\n\n  c\n"), "a; b: c"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := filepath.Join(t.TempDir(), "out")
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"quickstart", "--out", out}, &stdout, &stderr); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
	if stdout.Len() > 0 || !strings.Contains(stderr.String(), "nac: interrupted\n") {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	noFiles(t, out)
}

// noFiles fails if there is any file below dir.
func noFiles(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// build makes the program itself.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program")
	}
	bin := filepath.Join(t.TempDir(), "nac.exe")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}
