package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/klauspost/cpuid/v2"

	"nac/detector"
	"nac/imageset"
	"nac/internal/atomicfile"
	"nac/openood"
	"nac/report"
)

// writePage writes the results as an HTML file.
func (j *job) writePage(path string, reports []*openood.Report, maps []report.Map) error {
	p := report.Page{
		Reports: reports, Coverage: maps, Search: j.landscape, Classes: j.classes, Made: time.Now(),
		Open:    func(path string) (*imageset.Image, error) { return imageset.DecodeFS(j.layout.FS, path) },
		Machine: machine(), Facts: j.facts(reports[0]),
	}
	if len(reports) > 1 {
		for _, r := range j.runs {
			p.Runs = append(p.Runs, r.name)
		}
		var err error
		if p.Mean, p.Std, err = openood.Average(reports); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(path, p.Write); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}

// mapsOf draws what NAC covers, if it is among the methods.
func mapsOf(methods []openood.Method) ([]report.Map, error) {
	for _, m := range methods {
		if c, ok := m.Detector.(detector.Covered); ok {
			return report.Maps(c.Coverage())
		}
	}
	return nil, nil
}

func machine() [][2]string {
	cpu := cpuid.CPU.BrandName
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	return [][2]string{
		{"nac", version()},
		{"built with", runtime.Version()},
		{"system", runtime.GOOS + "/" + runtime.GOARCH},
		{"processor", cpu},
		{"processors used by Go", strconv.Itoa(runtime.GOMAXPROCS(0))},
	}
}

func (j *job) facts(r *openood.Report) [][2]string {
	workers := "all processors"
	if j.workers > 0 {
		workers = strconv.Itoa(j.workers)
	}
	facts := [][2]string{
		{"benchmark", r.Benchmark},
		{"network", r.Network},
		{"checkpoint", r.Checkpoint},
		{"transform", r.Transform},
		{"training images", thousands(r.TrainImages) + fmt.Sprintf(", chosen with seed %d", j.seed)},
		{"validation images", thousands(r.Accuracy.ValImages)},
		{"batch", strconv.Itoa(j.batch)},
		{"workers", workers},
		{"instruction set", r.Kernel},
	}
	if r.Cache != "" {
		facts = append(facts, [2]string{"cache", r.Cache})
	}
	return facts
}

// pageFile is where the page goes: where --report says, else into --out; empty for
// nowhere.
func (j *jobFlags) pageFile() string {
	if j.page != "" || j.out == "" {
		return j.page
	}
	return filepath.Join(j.out, "report.html")
}
