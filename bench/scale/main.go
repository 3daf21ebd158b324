package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"nac/coverage"
	"nac/shard"
)

// dataSet is a set of images and how large they are as files.
type dataSet struct {
	name   string
	images float64
	bytes  float64 // of an average image
}

// Sizes as published: ImageNet-1k's training set is 138 GB, ImageNet-22k's 1.31 TB; LAION-400M
// at 256 pixels is 10 TB.
var dataSets = []dataSet{
	{"ImageNet-1k train", 1.281e6, 108e3},
	{"ImageNet-22k", 14.2e6, 92e3},
	{"LAION-400M", 400e6, 25e3},
}

// network is what an image costs. The rates are those of docs/performance.md, of a core.
type network struct {
	name     string
	perCore  float64 // images/s: forward and backward, without decoding
	counts   float64 // bytes of counts, M = 50
	rowBytes float64 // bytes of logits, feature and states
}

var networks = []network{
	{"ResNet-50", 7.8, 3840 * 49 * 4, 4 * (1000 + 2048 + 2*3840)},
	{"ViT-B/16", 2.4, 4 * 768 * 49 * 4, 4 * (1000 + 768 + 2*4*768)},
}

func main() {
	decode := flag.Float64("decode", 0.0038, "seconds of a core to decode and resize an image to 224x224")
	flag.Parse()
	if err := run(*decode); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(decode float64) error {
	const workers, cores = 1000, 4
	merge, err := mergeSeconds(workers)
	if err != nil {
		return err
	}
	fmt.Printf("merging %d files of counts of a ResNet-50: %.1f s on one core\n\n", workers, merge)
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"data", "network", "core hours", "hours on 1,000 workers of 4 cores", "with stragglers, failures", "read", "counts moved", "states kept"})
	for _, d := range dataSets {
		for _, n := range networks {
			perImage := 1/n.perCore + decode
			c := cluster{workers: workers, perImage: perImage / cores, start: 30}
			ideal, err := c.run(int(d.images), 4*workers, nothing)
			if err != nil {
				return err
			}
			c.slow, c.factor, c.fail, c.again, c.seed = 0.05, 3, 0.02, true, 1
			real, err := c.run(int(d.images), 4*workers, nothing)
			if err != nil {
				return err
			}
			t.AppendRow(table.Row{
				d.name, n.name, fmt.Sprintf("%.0f", d.images*perImage/3600), fmt.Sprintf("%.2f", ideal.seconds/3600), fmt.Sprintf("%.2f", real.seconds/3600),
				fmt.Sprintf("%.2f TB", d.images*d.bytes/1e12), fmt.Sprintf("%.1f GB", 4*workers*n.counts/1e9), fmt.Sprintf("%.2f TB", d.images*n.rowBytes/1e12),
			})
		}
	}
	fmt.Println(t.Render())
	return nil
}

// nothing is the work of a simulation that asks for times alone.
func nothing(shard.Shard) ([]byte, error) { return []byte{}, nil }

// mergeSeconds measures how long it takes to read and add up n files of counts.
func mergeSeconds(n int) (float64, error) {
	var settings []coverage.LayerSettings
	channels := map[string]int{}
	for i, c := range []int{2048, 1024, 512, 256} {
		name := fmt.Sprintf("layer%d", 4-i)
		settings = append(settings, coverage.LayerSettings{Layer: name, M: 50, O: 50, Alpha: 1})
		channels[name] = c
	}
	sum, err := coverage.New(settings, channels)
	if err != nil {
		return 0, err
	}
	var file bytes.Buffer
	if err := sum.Encode(&file); err != nil {
		return 0, err
	}
	begin := time.Now()
	for range n {
		c, err := coverage.Decode("counts", bytes.NewReader(file.Bytes()), int64(file.Len()))
		if err != nil {
			return 0, err
		}
		if err := sum.Merge(c); err != nil {
			return 0, err
		}
	}
	return time.Since(begin).Seconds(), nil
}
