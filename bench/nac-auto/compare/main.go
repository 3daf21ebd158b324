// Command compare fits detectors on sets that extract wrote and prints a Markdown
// table of AUROC, near-OOD and far-OOD, in percent.
//
//	go run ./bench/nac-auto/compare -in DIR -layers avgpool,layer3,layer2,layer1 \
//	    -train main_train_cifar10,sub_train_cifar10 -val val_cifar10 -id val_cifar10 -near val_tin -far far.noise,far.tile
//
// A set DIR/NAME is read from that folder instead. -scores writes the scores that the
// tables are made of, for fusion.py: detectors are then fitted on four fifths of the
// training images, and the others are scored too, as the set held.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nac/coverage"
	"nac/detector"
	"nac/internal/safetensors"
	"nac/metric"
)

var (
	in     = flag.String("in", "", "folder that extract wrote")
	layers = flag.String("layers", "avgpool,layer3,layer2,layer1", "layers to read, the deepest first")
	train  = flag.String("train", "", "sets to fit on")
	val    = flag.String("val", "", "ID validation set, for methods that learn from one")
	id     = flag.String("id", "", "ID set to score")
	near   = flag.String("near", "", "near-OOD sets")
	far    = flag.String("far", "", "far-OOD sets")
	keys   = flag.String("detectors", strings.Join(detector.Keys(), ","), "detectors; nac_fusion:A+B names its parts")
	alpha  = flag.Bool("spread", false, "nac: alpha is 1/std(z*g) and O is 3 % of the training images, instead of the published settings")
	sets   = flag.Bool("sets", false, "a column for each set")
	scores = flag.String("scores", "", "file to write scores of all images to, instead of a table")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// data are sets, with the network that they came from.
type data struct {
	network detector.Network
	inputs  detector.Inputs
}

func load(names string) (*data, error) {
	d := &data{network: detector.Network{Channels: map[string]int{}}}
	for i, name := range strings.Split(names, ",") {
		path := name + ".safetensors"
		if !strings.Contains(name, "/") {
			path = filepath.Join(*in, path)
		}
		f, err := safetensors.Read(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		float32s := func(name string) (v []float32) {
			if err == nil {
				v, _, err = f.Float32s(name)
			}
			return v
		}
		x, n := &d.inputs, &d.network
		n.Weight, n.Bias = float32s("head.weight"), float32s("head.bias")
		x.Logits, x.Feature = append(x.Logits, float32s("logits")...), append(x.Feature, float32s("feature")...)
		for j, l := range strings.Split(*layers, ",") {
			if i == 0 {
				x.States = append(x.States, coverage.States{Layer: l})
			}
			s := &x.States[j]
			s.Z, s.G = append(s.Z, float32s(l+".z")...), append(s.G, float32s(l+".g")...)
		}
		if err != nil {
			return nil, err
		}
		labels, _, err := f.Int32s("label")
		if err != nil {
			return nil, err
		}
		for _, l := range labels {
			x.Labels = append(x.Labels, int(l))
		}
		x.N = len(x.Labels)
		n.Classes = len(n.Bias)
		n.Features = len(n.Weight) / n.Classes
		for _, s := range x.States {
			n.Channels[s.Layer] = len(s.Z) / x.N
		}
	}
	return d, nil
}

type set struct {
	name string
	data *data
}

type row struct {
	name      string
	near, far float64
	each      []float64
}

func run() error {
	fit, err := load(*train)
	if err != nil {
		return err
	}
	reference, err := load(*id)
	if err != nil {
		return err
	}
	var validation *data
	if *val != "" {
		if validation, err = load(*val); err != nil {
			return err
		}
	}
	var ood []set
	nears := 0
	for _, group := range []string{*near, *far} {
		for _, name := range strings.Split(group, ",") {
			if name == "" {
				continue
			}
			d, err := load(name)
			if err != nil {
				return err
			}
			ood = append(ood, set{name, d})
		}
		if nears == 0 {
			nears = len(ood)
		}
	}
	if *scores != "" {
		return writeScores(fit, validation, append([]set{{"id", reference}}, ood...))
	}
	var table []row
	for _, name := range strings.Split(*keys, ",") {
		r, err := evaluate(name, fit, validation, reference, ood, nears)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			continue
		}
		table = append(table, r)
	}
	slices.SortFunc(table, func(a, b row) int { return cmp.Compare(b.near+b.far, a.near+a.far) })
	head, rule := "| detector | near | far |", "|---|---:|---:|"
	if *sets {
		for _, s := range ood {
			head, rule = head+" "+s.name+" |", rule+"---:|"
		}
	}
	fmt.Println(head + "\n" + rule)
	for _, r := range table {
		fmt.Printf("| %s | %.1f | %.1f |", r.name, r.near, r.far)
		if *sets {
			for _, a := range r.each {
				fmt.Printf(" %.1f |", a)
			}
		}
		fmt.Println()
	}
	return nil
}

// hold splits training images: four fifths to fit on, and the others with their indices.
func hold(all *data) (fit, held *data, of []int32) {
	split := func(take bool) *data {
		d := &data{network: all.network}
		x, y := &all.inputs, &d.inputs
		for _, s := range x.States {
			y.States = append(y.States, coverage.States{Layer: s.Layer})
		}
		r := rand.New(rand.NewPCG(1, 2))
		for i := range x.N {
			if (r.IntN(5) == 0) != take {
				continue
			}
			y.N++
			y.Labels = append(y.Labels, x.Labels[i])
			y.Logits = append(y.Logits, x.Logits[i*d.network.Classes:][:d.network.Classes]...)
			y.Feature = append(y.Feature, x.Feature[i*d.network.Features:][:d.network.Features]...)
			for j, s := range x.States {
				c := d.network.Channels[s.Layer]
				y.States[j].Z = append(y.States[j].Z, s.Z[i*c:][:c]...)
				y.States[j].G = append(y.States[j].G, s.G[i*c:][:c]...)
			}
			if take {
				of = append(of, int32(i))
			}
		}
		return d
	}
	return split(false), split(true), of
}

func writeScores(fit, validation *data, sets []set) error {
	fit, held, of := hold(fit)
	sets = append([]set{{"held", held}}, sets...)
	tensors := []safetensors.Tensor{safetensors.Int32("held.index", []int{len(of)}, of)}
	for _, key := range strings.Split(*keys, ",") {
		score, err := fitted(key, fit, validation)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", key, err)
			continue
		}
		for _, s := range sets {
			v, err := score(s.data)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", key, err)
				break
			}
			tensors = append(tensors, safetensors.Float64(filepath.Base(s.name)+"."+key, []int{len(v)}, v))
		}
	}
	return safetensors.Write(*scores, tensors, nil)
}

// fitted returns the scores of a detector.
func fitted(name string, fit, validation *data) (func(*data) ([]float64, error), error) {
	key, parts, _ := strings.Cut(name, ":")
	s := detector.Settings{}
	for i, l := range strings.Split(*layers, ",") {
		set := coverage.LayerSettings{Layer: l, M: 50, O: max(1, fit.inputs.N*3/100), Alpha: 1}
		if *alpha {
			set.Alpha = 1 / spread(fit.inputs.States[i])
		} else {
			set = published(set)
		}
		s.Layers = append(s.Layers, set)
	}
	if parts != "" {
		s.Fusion = strings.Split(parts, "+")
	}
	d, err := detector.New(key, s)
	if err != nil {
		return nil, err
	}
	if err := d.Begin(fit.network); err != nil {
		return nil, err
	}
	if err := d.Fit(&fit.inputs); err != nil {
		return nil, err
	}
	if v, ok := d.(detector.ValidationFitter); ok && validation != nil {
		if err := v.FitValidation(&validation.inputs); err != nil {
			return nil, err
		}
	}
	if err := d.End(); err != nil {
		return nil, err
	}
	return func(x *data) ([]float64, error) {
		dst := make([]float64, x.inputs.N)
		in := x.inputs
		in.Labels = nil
		return dst, d.Score(&in, dst)
	}, nil
}

func evaluate(name string, fit, validation, reference *data, ood []set, nears int) (row, error) {
	score, err := fitted(name, fit, validation)
	if err != nil {
		return row{}, err
	}
	ids, err := score(reference)
	if err != nil {
		return row{}, err
	}
	r := row{name: name}
	for i, x := range ood {
		scores, err := score(x.data)
		if err != nil {
			return row{}, err
		}
		a, err := metric.AUROC(ids, scores)
		if err != nil {
			return row{}, err
		}
		r.each = append(r.each, 100*a)
		if i < nears {
			r.near += 100 * a / float64(nears)
		} else {
			r.far += 100 * a / float64(len(ood)-nears)
		}
	}
	return r, nil
}

// published are the NAC reference's settings for ResNet-18 on CIFAR-10.
func published(s coverage.LayerSettings) coverage.LayerSettings {
	switch s.Layer {
	case "avgpool":
		s.O, s.Alpha = 50, 100
	case "layer3":
		s.M, s.O, s.Alpha = 500, 100, 1000
	case "layer2":
		s.O, s.Alpha = 5, 0.001
	case "layer1":
		s.M, s.O, s.Alpha = 500, 100, 0.001
	}
	return s
}

// spread is the standard deviation of z*g.
func spread(s coverage.States) float64 {
	sum, squares, n := 0.0, 0.0, float64(len(s.Z))
	for i, z := range s.Z {
		x := float64(z * s.G[i])
		sum, squares = sum+x, squares+x*x
	}
	return math.Sqrt(squares/n - sum*sum/(n*n))
}
