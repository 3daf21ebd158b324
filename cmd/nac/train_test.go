package main

import (
	"encoding/csv"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// photographs makes a folder of classes, each a colour under noise.
func photographs(t *testing.T, dir string, side, images int, classes ...string) {
	t.Helper()
	for c, class := range classes {
		if err := os.MkdirAll(filepath.Join(dir, class), 0o777); err != nil {
			t.Fatal(err)
		}
		for i := range images {
			r := rand.New(rand.NewPCG(uint64(c), uint64(i)))
			img := image.NewRGBA(image.Rect(0, 0, side, side))
			for p := 0; p < len(img.Pix); p += 4 {
				pixel := [3]int{r.IntN(120), r.IntN(120), r.IntN(120)}
				pixel[c%3] += 120
				img.Set(p/4%side, p/4/side, color.RGBA{uint8(pixel[0]), uint8(pixel[1]), uint8(pixel[2]), 255})
			}
			f, err := os.Create(filepath.Join(dir, class, fmt.Sprintf("%03d.png", i)))
			if err != nil {
				t.Fatal(err)
			}
			if err := png.Encode(f, img); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTrain(t *testing.T) {
	data, out := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "run")
	photographs(t, data, 40, 16, "blue", "green", "red")
	args := []string{"train", "--arch", "resnet20", "--data", data, "--epochs", "3", "--batch", "8", "--lr", "0.05", "--out", out}
	code, stdout, stderr := call(t, args...)
	if code != exitOK || !strings.Contains(stderr, "3 classes") || !strings.Contains(stderr, "epoch 3: loss") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if !strings.Contains(stdout, "Validation accuracy 100.00 % after epoch 3") {
		t.Errorf("colours are not learned: %s", stdout)
	}
	f, err := os.Open(filepath.Join(out, "curves.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Errorf("learning curves: %v (%v)", rows, err)
	}
	classes, err := os.ReadFile(filepath.Join(out, "classes.txt"))
	if err != nil || string(classes) != "blue\ngreen\nred\n" {
		t.Errorf("classes %q (%v)", classes, err)
	}
	if code, stdout, stderr := call(t, "layers", "--arch", "resnet20", "--checkpoint", filepath.Join(out, "best.safetensors")); code != exitOK {
		t.Errorf("what was trained cannot be opened: %s%s", stdout, stderr)
	}
	// A second run must not write over the first one.
	if code, _, stderr := call(t, args...); code != exitUsage || !strings.Contains(stderr, "--resume") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr := call(t, append(args, "--resume")...); code != exitOK || !strings.Contains(stdout, "finished") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := call(t, append(args, "--resume", "--lr", "0.01")...); code != exitFailure || !strings.Contains(stderr, "other settings") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	// Three classes become two: the last layer is made anew.
	two := filepath.Join(t.TempDir(), "two")
	photographs(t, two, 32, 6, "a", "b")
	code, stdout, stderr = call(t, "train", "--arch", "resnet20", "--data", two, "--valid", two, "--init", filepath.Join(out, "best.safetensors"),
		"--epochs", "1", "--batch", "12", "--out", filepath.Join(t.TempDir(), "tuned"), "--quiet")
	if code != exitOK || stderr != "" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestTrainMistakes(t *testing.T) {
	data, flat, other := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "flat"), filepath.Join(t.TempDir(), "other")
	photographs(t, data, 32, 4, "a", "b")
	photographs(t, flat, 32, 4, ".")
	photographs(t, other, 32, 2, "a", "c")
	broken := filepath.Join(t.TempDir(), "broken")
	photographs(t, broken, 32, 4, "a", "b")
	if err := os.WriteFile(filepath.Join(broken, "a", "001.png"), []byte("no picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"data", exitUsage, []string{"--data"}},
		{"", exitUsage, []string{"--arch"}},
		{"--arch resnet20", exitUsage, []string{"--data"}},
		{"--arch resnet20 --data d", exitUsage, []string{"--out"}},
		{"--arch vgg --data d --out o", exitUsage, []string{"vgg", "resnet20"}},
		{"--arch resnet20 --data d --out o --schedule step", exitUsage, []string{"--milestones"}},
		{"--arch resnet20 --data d --out o --optimizer lion", exitUsage, []string{"lion", "adamw"}},
		{"--arch resnet20 --data d --out o --dropout 1", exitUsage, []string{"--dropout"}},
		{"--arch resnet20 --data d --out o --momentum 1", exitUsage, []string{"momentum"}},
		{"--arch resnet20 --data " + data + " --out " + out + " --lr 0", exitUsage, []string{"learning rate"}},
		{"--arch resnet20 --data " + data + " --out " + out + " --augment mosaic", exitUsage, []string{"mosaic", "cifar"}},
		{"--arch resnet20 --data " + data + " --out " + out + " --class-weights 1,2,3", exitUsage, []string{"3", "2 classes"}},
		{"--arch resnet20 --data " + flat + " --out " + out, exitFailure, []string{"no class"}},
		{"--arch resnet20 --data " + data + " --valid " + other + " --out " + out, exitFailure, []string{"a, c", "a, b"}},
		{"--arch resnet20 --data " + broken + " --out " + filepath.Join(out, "x"), exitFailure, []string{"001.png"}},
		{"--arch resnet20 --data " + data + " --lr 1e30 --valid " + data + " --epochs 9 --batch 4 --out " + filepath.Join(out, "y"), exitFailure, []string{"diverged"}},
	} {
		code, _, stderr := call(t, append([]string{"train", "--quiet"}, strings.Fields(c.args)...)...)
		if code != c.code {
			t.Errorf("nac train %s: exit code %d, want %d: %s", c.args, code, c.code, stderr)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr, s) {
				t.Errorf("nac train %s: %q does not say %q", c.args, stderr, s)
			}
		}
	}
}
