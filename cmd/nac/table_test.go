package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"nac/metric"
	"nac/openood"
)

func made() *openood.Report {
	a := metric.Result{FPR95: 0.5, AUROC: 0.875, AUPRIn: 0.9, AUPROut: 0.25}
	b := metric.Result{FPR95: 0.25, AUROC: 0.75, AUPRIn: 0.9, AUPROut: 0.5}
	method := func(key string, r metric.Result, warn bool) openood.MethodResult {
		return openood.MethodResult{
			Key: key, Near: []openood.Row{{Set: "tin", Images: 7793, Result: r}}, NearMean: &r,
			Overfit: &openood.Overfit{AUROC: 0.53, StandardError: 0.01, Warn: warn},
		}
	}
	return &openood.Report{
		Benchmark: "cifar10", Network: "resnet20",
		Methods:  []openood.MethodResult{method("nac", a, true), method("msp", b, false)},
		Accuracy: openood.Accuracy{Test: 0.8111, TestImages: 9000, Val: 0.8, ValImages: 1000},
		Stages:   []openood.Stage{{Set: "tin", Images: 7793, Seconds: 2, WaitSeconds: 0.25, NetworkSeconds: 1.5, DetectorSeconds: 0.25}},
		Skipped:  strings.Split(strings.Repeat("a.png: bad\n", 11)+"b.png: bad", "\n"),
	}
}

func TestResultTable(t *testing.T) {
	plain := resultTable(made(), nil, false)
	for _, line := range []string{
		"near tin    7,793  nac        50.00  87.50    90.00     25.00",
		"                   msp        25.00  75.00    90.00     50.00",
	} {
		if !strings.Contains(plain, line) {
			t.Errorf("no line %q in\n%s", line, plain)
		}
	}
	if strings.Contains(plain, "\x1b") {
		t.Error("escape codes where nobody looks")
	}
	bold := resultTable(made(), nil, true)
	for cell, want := range map[string]bool{"25.00": true, "50.00": true, "87.50": true, "75.00": false, "90.00": true} {
		if got := strings.Contains(bold, "\x1b[1m"+cell); got != want {
			t.Errorf("%s in bold: %v, want %v", cell, got, want)
		}
	}
}

func TestPrintReport(t *testing.T) {
	var b bytes.Buffer
	if err := printReport(&b, made(), "auroc"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"ID accuracy 81.11 % of 9,000 test images; 81.00 % of all 10,000",
		"by chance ±3.00: nac 53.00, msp 53.00",
		"WARNING: nac told",
		"12 images were skipped", "and 2 more",
	} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("no %q in\n%s", s, b.String())
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -123: "-123", -1234: "-1,234"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{0.5: "0.50 s", 12: "12 s", 300: "5.0 min", 7200: "2.0 h"} {
		if got := seconds(s); got != want {
			t.Errorf("%v is %s, want %s", s, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	if p.bars {
		t.Error("a bar for a buffer")
	}
	p.Begin("tin", 7793)
	p.Advance(64)
	if b.Len() > 0 {
		t.Errorf("a line too early: %s", b.String())
	}
	p.every = 0
	p.Advance(64)
	if got := b.String(); got != "tin          128 of 7,793 images\n" {
		t.Errorf("%q", got)
	}
	b.Reset()
	p.End()
	if got := b.String(); !strings.HasPrefix(got, "tin          128 of 7,793 images, ") {
		t.Errorf("%q", got)
	}
	// Of a bar nothing is left but the line.
	b.Reset()
	p = &progress{w: &b, bars: true, every: time.Hour}
	p.Begin("tin", 128)
	p.Advance(64)
	if got := b.String(); !strings.Contains(got, "64/128") {
		t.Errorf("no bar in %q", got)
	}
	p.Advance(64)
	p.End()
	shown := b.String()[strings.LastIndexByte(b.String(), '\r')+1:]
	if !strings.HasPrefix(shown, "tin          128 images, ") || strings.Count(shown, "\n") != 1 {
		t.Errorf("%q is left", shown)
	}
}

func TestRankingTable(t *testing.T) {
	r := made() // near alone: nac 87.5, msp 75
	r.Methods[0].Cost = openood.MethodCost{FitSeconds: 2, ScoreSeconds: 1, StateBytes: 3 << 19}
	r.Methods[1].Cost = openood.MethodCost{ScoreSeconds: 0.5, StateBytes: 8}
	for by, first := range map[string]string{"auroc": "nac", "near": "nac", "fpr95": "msp", "time": "msp", "memory": "msp", "given": "nac"} {
		plain := rankingTable(r, nil, by, false)
		if a, b := strings.Index(plain, "nac"), strings.Index(plain, "msp"); (a < b) != (first == "nac") {
			t.Errorf("by %s, %s is not first in\n%s", by, first, plain)
		}
	}
	plain := rankingTable(r, nil, "auroc", false)
	for _, line := range []string{
		"nac       87.50   50.00  87.50     2.00     1.00  1.5 MiB",
		"msp       75.00   25.00  75.00     0.00     0.50      8 B",
	} {
		if !strings.Contains(plain, line) {
			t.Errorf("no line %q in\n%s", line, plain)
		}
	}
	bold := rankingTable(r, nil, "auroc", true)
	for cell, want := range map[string]bool{"25.00": true, "50.00": false, "87.50": true, "75.00": false} {
		if got := strings.Contains(bold, "\x1b[1m"+cell); got != want {
			t.Errorf("%s in bold: %v, want %v", cell, got, want)
		}
	}
	if with := rankingTable(r, r, "auroc", false); !strings.Contains(with, "87.50 ± 87.50") {
		t.Errorf("no deviation in\n%s", with)
	}
	// Of many detectors a row each is enough.
	for range mostBySet {
		r.Methods = append(r.Methods, r.Methods[1])
	}
	if text := strings.Join(resultText(r, nil, "auroc", false), "\n"); strings.Contains(text, "AUPR-In") || !strings.Contains(text, "table.csv") {
		t.Errorf("the table by set is there:\n%s", text)
	}
}
