package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestLayersOfONNX(t *testing.T) {
	model := filepath.Join("..", "..", "onnx", "testdata", "plain.onnx")
	for _, args := range [][]string{{"layers", model}, {"layers", "--checkpoint", model}} {
		code, stdout, stderr := call(t, args...)
		if code != exitOK {
			t.Fatalf("%v: exit code %d, %s", args, code, stderr)
		}
		for _, want := range []string{"pool", "12  3x3", "--layers hidden,pool,relu\n", "plain: 5 classes, feature of 20, images of 3x9x9"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%v lacks %q:\n%s", args, want, stdout)
			}
		}
	}
	for _, args := range [][]string{
		{"layers", "--arch", "resnet20", model},
		{"layers", "--checkpoint", model, model},
		{"layers", "checkpoint.pth"},
		{"bench", "cifar10", "--arch", "resnet20", "--checkpoint", model, "--data", "."},
	} {
		if code, _, stderr := call(t, args...); code != exitUsage || stderr == "" {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	if code, _, stderr := call(t, "layers", "absent.onnx"); code == exitOK || !strings.Contains(stderr, "absent.onnx") {
		t.Errorf("an absent model: exit code %d, %q", code, stderr)
	}
}
