package arch

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nac/internal/kernel"
	"nac/internal/safetensors"
	"nac/internal/shareddata"
	"nac/weights"
)

// TestPyTorch compares with the numbers that bench/arch/check.py has made with
// PyTorch in float64, on one image, of all layers. NAC_PYTORCH names another
// directory of them.
func TestPyTorch(t *testing.T) {
	dir := os.Getenv("NAC_PYTORCH")
	if dir == "" {
		dir = filepath.Join("testdata", "pytorch")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no references in %s: %v", dir, err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".safetensors")
		t.Run(name, func(t *testing.T) {
			file, err := safetensors.Read(path)
			if err != nil {
				t.Fatal(err)
			}
			gain, err := strconv.ParseFloat(file.Metadata()["gain"], 64)
			if err != nil {
				t.Fatal(err)
			}
			_, shape, err := file.Float32s("logits")
			if err != nil {
				t.Fatal(err)
			}
			n := shape[0]
			sd := made(t, name, shape[1], gain)
			parameters := 0
			for _, tensor := range sd.Names() {
				if v, _ := sd.Lookup(tensor); !strings.Contains(tensor, ".running_") {
					parameters += len(v.Data)
				}
			}
			if want := file.Metadata()["parameters"]; strconv.Itoa(parameters) != want {
				t.Errorf("%d parameters, PyTorch has %s", parameters, want)
			}
			// What a checkpoint holds besides its parameters.
			for _, tensor := range file.Names() {
				if strings.HasSuffix(tensor, ".relative_position_index") {
					data, shape, err := file.Float32s(tensor)
					if err != nil {
						t.Fatal(err)
					}
					sd.Set(tensor, weights.Tensor{Shape: shape, Data: data})
				}
			}
			m, err := Load(name, sd)
			if err != nil {
				t.Fatal(err)
			}
			states := float64(stateTolerance)
			if strings.HasPrefix(name, "vit_") {
				states *= 2
			}
			r := Request{Gradients: true}
			for _, l := range m.Layers {
				r.Layers = append(r.Layers, l.Name)
			}
			images := shareddata.Fill(file.Metadata()["input"], n*m.InputSize[0]*m.InputSize[1]*m.InputSize[2], func(u float64) float64 { return 2 * (2*u - 1) })
			for _, set := range kernel.Available() {
				t.Run(set.Name(), func(t *testing.T) {
					r.Kernel = set.Name()
					e, err := m.NewExtractor(r, n, 0)
					if err != nil {
						t.Fatal(err)
					}
					got, err := e.Run(images, n)
					if err != nil {
						t.Fatal(err)
					}
					near(t, file, "logits", got.Logits, states)
					for _, s := range got.States {
						near(t, file, s.Name+".state", s.Z, states)
						near(t, file, s.Name+".kl_grad", s.G, gradientTolerance)
					}
				})
			}
		})
	}
}
