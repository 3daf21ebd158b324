package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nac/arch"
	"nac/internal/safetensors"
	"nac/openood"
)

// fresh writes a checkpoint of random weights.
func fresh(t *testing.T, path, name string, classes int, seed uint64) {
	t.Helper()
	sd, err := arch.Init(name, arch.InitOptions{Classes: classes, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	var tensors []safetensors.Tensor
	for _, n := range sd.Names() {
		x, _ := sd.Lookup(n)
		tensors = append(tensors, safetensors.Float32(n, x.Shape, x.Data))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.Write(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
}

// The commands of docs/reproduce.md on a few images and random weights: each reads the
// sets it should, with the transform it should, and writes the tables that OpenOOD's
// scripts write, near-OOD in them.
func TestRecipes(t *testing.T) {
	if testing.Short() {
		t.Skip("runs ResNet-50, ViT-B/16 and Swin-T over large images")
	}
	large := []string{"ssb_hard", "ninco", "nearood", "inaturalist", "textures", "openimage_o", "farood"}
	for _, c := range []struct {
		benchmark, arch  string
		classes, images  int
		runs             []string
		transform        string
		args, rows, csid []string
		says             []string
	}{
		{"cifar10", "resnet18_32x32", 10, 2, []string{"s0", "s1", "s2"}, "resize 32 bilinear", []string{"--runs", "s0,s1,s2", "--aps", "--fsood"},
			[]string{"cifar100", "tin", "nearood", "mnist", "svhn", "texture", "places365", "farood"}, []string{"cifar10c"},
			[]string{"over 3 training runs", "chosen by validation images", "All 256 combinations"}},
		{"imagenet", "resnet50", 1000, 1, nil, "resize 256 bilinear", []string{"--aps"}, large, nil,
			[]string{"chosen by validation images", "All 576 combinations"}},
		{"imagenet", "vit-b-16", 1000, 1, nil, "resize 256 bilinear", []string{"--arch", "vit-b-16"}, large, nil, []string{"layer_norm: M=50 O=500 alpha=100"}},
		{"imagenet", "swin-t", 1000, 1, nil, "resize 232 bicubic", []string{"--arch", "swin-t", "--fsood"}, large,
			[]string{"imagenet_v2", "imagenet_c", "imagenet_r", "imagenet_es"}, []string{"layer_7: M=500", "those for resnet50"}},
	} {
		t.Run(c.benchmark+" "+c.arch, func(t *testing.T) {
			data, dir := layOut(t, c.benchmark, 5, c.images), t.TempDir()
			checkpoint := filepath.Join(dir, "best.safetensors")
			for i, s := range c.runs {
				checkpoint = filepath.Join(dir, "runs")
				fresh(t, filepath.Join(checkpoint, s, "best.safetensors"), archName(c.arch), c.classes, uint64(i))
			}
			if c.runs == nil {
				fresh(t, checkpoint, archName(c.arch), c.classes, 1)
			}
			out := filepath.Join(dir, "out")
			code, stdout, stderr := call(t, append([]string{"bench", c.benchmark, "--checkpoint", checkpoint, "--data", data, "--out", out, "--cache", "off", "--detectors", "nac"}, c.args...)...)
			if code != exitOK {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			for _, s := range c.says {
				if !strings.Contains(stdout, s) {
					t.Errorf("the output does not say %q:\n%s", s, stdout)
				}
			}
			var reports []openood.Report
			for _, s := range c.runs {
				reports = append(reports, readReport(t, filepath.Join(out, s)))
			}
			if c.runs == nil {
				reports = append(reports, readReport(t, out))
			}
			if got := reports[0].Transform; !strings.HasPrefix(got, c.transform) {
				t.Errorf("the transform is %s, want %s", got, c.transform)
			}
			folders := []string{"ood"}
			if c.csid != nil {
				folders = append(folders, "fsood")
			}
			for _, folder := range folders {
				rows := readCSV(t, filepath.Join(out, folder, "nac.csv"))
				if got := strings.Join(rows[0], ","); got != ",FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC" {
					t.Errorf("%s/nac.csv begins %q", folder, got)
				}
				if len(rows) != 1+len(c.rows) {
					t.Fatalf("%s/nac.csv has %d lines, want %d", folder, len(rows), 1+len(c.rows))
				}
				for i, row := range rows[1:] {
					if row[0] != c.rows[i] {
						t.Errorf("%s/nac.csv: row %d is %s, want %s", folder, i, row[0], c.rows[i])
					}
					if want := meanAUROC(t, reports, folder == "fsood", row[0]); math.Abs(number(t, row[2])-want) > 0.005001 {
						t.Errorf("%s/nac.csv: AUROC on %s is %s, the reports have %.4f", folder, row[0], row[2], want)
					}
				}
			}
			for _, s := range c.csid {
				if _, list, ok := strings.Cut(stdout, "Covariate-shifted ID: accuracy "); !ok || !strings.Contains(strings.SplitN(list, "\n", 2)[0], s+" ") {
					t.Errorf("the output does not say what the accuracy on %s is:\n%s", s, stdout)
				}
			}
		})
	}
}

// number is the first in a cell, which may go on with a deviation.
func number(t *testing.T, cell string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(strings.Fields(cell)[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// meanAUROC is NAC's AUROC in percent on a set, or the mean over sets, over training runs.
func meanAUROC(t *testing.T, reports []openood.Report, fullSpectrum bool, set string) float64 {
	t.Helper()
	sum := 0.0
	for _, r := range reports {
		i := slices.IndexFunc(r.Methods, func(m openood.MethodResult) bool { return m.Key == "nac" })
		near, far := r.Methods[i].Near, r.Methods[i].Far
		if fullSpectrum {
			near, far = r.Methods[i].FullSpectrum.Near, r.Methods[i].FullSpectrum.Far
		}
		n, mean := 0, 0.0
		for _, row := range slices.Concat(near, far) {
			isNear := slices.ContainsFunc(near, func(o openood.Row) bool { return o.Set == row.Set })
			if row.Set == set || set == "nearood" && isNear || set == "farood" && !isNear {
				mean += 100 * row.Result.AUROC
				n++
			}
		}
		if n == 0 {
			t.Fatalf("no results on %s", set)
		}
		sum += mean / float64(n)
	}
	return sum / float64(len(reports))
}
