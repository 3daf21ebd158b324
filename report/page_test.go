package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"nac/coverage"
	"nac/detector"
	"nac/imageset"
	"nac/metric"
	"nac/openood"
)

// hostile is what a file may be called.
const hostile = `a"><script>alert(1)</script><img src=http://example.com/x onerror=alert(2)>.png`

// made returns a report with made scores: of each set so many images, of each
// detector that many scores.
func made(t testing.TB, seed uint64, detectors []string, test int, near, far map[string]int) *openood.Report {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	r := &openood.Report{
		Benchmark: "cifar10", Network: "resnet18_32x32", Checkpoint: "runs/s0/best.ckpt", Conventions: "Higher is more ID.",
		Notes: []string{"NAC is weak on near-OOD."}, Absent: []string{"svhn"}, Partial: []openood.Partial{{Set: "mnist", Images: 10, Of: 70000}},
		TrainImages: 1000, Accuracy: openood.Accuracy{Test: 0.9506, TestImages: test, ValImages: 10},
		Stages: []openood.Stage{{Set: "train", Images: 1000, Seconds: 2}}, Skipped: []string{hostile + ": not an image"},
	}
	scores := func(set string, n int, shift float64) *openood.SetScores {
		s := &openood.SetScores{Set: set, Paths: make([]string, n), Labels: make([]int, n), Predictions: make([]int, n)}
		for i := range n {
			s.Paths[i] = fmt.Sprintf("images/%s/%d.png", set, i)
			s.Labels[i], s.Predictions[i] = i%10, (i*i)%10
			if shift != 0 {
				s.Labels[i] = -1
			}
		}
		for _, d := range detectors {
			values := make([]float64, n)
			for i := range values {
				values[i] = random.NormFloat64() - shift
			}
			s.Scores = append(s.Scores, openood.MethodScores{Key: d, Values: values})
		}
		r.Scores = append(r.Scores, s)
		return s
	}
	id := scores("test", test, 0)
	sets := map[string]*openood.SetScores{}
	for k, group := range []map[string]int{near, far} {
		for set, n := range group {
			sets[set] = scores(set, n, float64(k+1))
			sets[set].Paths[0] = hostile
			for i := range sets[set].Scores {
				sets[set].Scores[i].Values[0] = 9 // the most confusing one
			}
		}
	}
	for d, key := range detectors {
		m := openood.MethodResult{
			Key: key, Settings: detector.Settings{Layers: []coverage.LayerSettings{{Layer: "avgpool", M: 50, O: 30, Alpha: 100}}, Params: map[string]float64{key + ".k": 50}},
			Overfit: &openood.Overfit{AUROC: 0.6, StandardError: 0.01, Warn: true},
		}
		rows := func(group map[string]int) (rows []openood.Row, mean *metric.Result) {
			var all []metric.Result
			for set, n := range group {
				res, err := metric.OOD(id.Scores[d].Values, sets[set].Scores[d].Values)
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, openood.Row{Set: set, Images: n, Result: res})
				all = append(all, res)
			}
			m := metric.Mean(all)
			return rows, &m
		}
		m.Near, m.NearMean = rows(near)
		m.Far, m.FarMean = rows(far)
		r.Methods = append(r.Methods, m)
	}
	return r
}

func small(t testing.TB, seed uint64) *openood.Report {
	return made(t, seed, []string{"msp", "nac"}, 300, map[string]int{"tin": 200}, map[string]int{"mnist": 250})
}

func whole(t testing.TB) Page {
	t.Helper()
	a, b := small(t, 1), small(t, 2)
	mean, std, err := openood.Average([]*openood.Report{a, b})
	if err != nil {
		t.Fatal(err)
	}
	train := 0.51
	return Page{
		Reports: []*openood.Report{a, b}, Runs: []string{"s0", "s1"}, Mean: mean, Std: std,
		Coverage: maps(t),
		Search: &Landscape{Layers: []string{"avgpool", "layer3"}, Best: 1, Points: []Point{
			{Choices: []string{"M=50 O=10", "M=500 O=5"}, AUROC: 0.8}, {Choices: []string{"M=50 O=50", "M=500 O=5"}, AUROC: 0.9, TrainAUROC: &train},
			{Choices: []string{"M=50 O=10", "M=50 O=5"}, AUROC: 0.85}, {Choices: []string{"M=50 O=50", "M=50 O=5"}, AUROC: 0.875},
		}},
		Classes: []string{"airplane", "<b>cat</b>"},
		Open: func(path string) (*imageset.Image, error) {
			if strings.HasSuffix(path, "3.png") {
				return nil, errors.New("gone")
			}
			img := &imageset.Image{Width: 32, Height: 32, Pix: make([]uint8, 3*32*32)}
			if len(path)%2 == 0 {
				img = &imageset.Image{Width: 300, Height: 200, Pix: make([]uint8, 3*300*200)}
			}
			for i := range img.Pix {
				img.Pix[i] = uint8(i * len(path))
			}
			return img, nil
		},
		Machine: [][2]string{{"processor", "made"}}, Facts: [][2]string{{"transform", "resize 32"}}, Made: time.Unix(0, 0).UTC(),
	}
}

func maps(t testing.TB) []Map {
	t.Helper()
	c, err := coverage.New([]coverage.LayerSettings{{Layer: "avgpool", M: 50, O: 3, Alpha: 1}, {Layer: "layer3", M: 1000, O: 2, Alpha: 0.01}},
		map[string]int{"avgpool": 24, "layer3": 400})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 1))
	for range 40 {
		states := []coverage.States{{Layer: "avgpool"}, {Layer: "layer3"}}
		for i, n := range []int{24, 400} {
			for range n {
				states[i].Z = append(states[i].Z, float32(random.ExpFloat64()))
				states[i].G = append(states[i].G, float32(random.NormFloat64()))
			}
		}
		if err := c.Add(states, 1); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Maps(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// parse reads a page strictly enough to find what breaks out of its place.
func parse(t testing.TB, p Page) (root *html.Node, text string, size int) {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	if file := os.Getenv("NAC_REPORT"); file != "" { // to be looked at
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := html.Parse(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			all.WriteString(n.Data)
		}
	}
	return root, all.String(), b.Len()
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func TestPage(t *testing.T) {
	p := whole(t)
	root, text, _ := parse(t, p)
	count := map[string]int{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		count[n.Data]++
		switch n.Data {
		case "script", "link", "iframe", "object", "base", "form", "b>cat<":
			t.Errorf("there is a %s", n.Data)
		case "img":
			if !strings.HasPrefix(attribute(n, "src"), "data:image/") {
				t.Errorf("an image is from %.40s", attribute(n, "src"))
			}
			if attribute(n, "alt") == "" {
				t.Error("an image without a text")
			}
			count[attribute(n, "class")+" img"]++
		case "svg":
			if attribute(n, "aria-label") == "" && attribute(n, "aria-hidden") == "" {
				t.Error("a figure without a text")
			}
		case "table":
			count["tables"]++
		case "caption":
			count["captions"]++
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || (a.Key == "href" || a.Key == "src") && !strings.HasPrefix(a.Val, "data:") {
				t.Errorf("%s has %s=%.60s", n.Data, a.Key, a.Val)
			}
		}
	}
	if count["tables"] != count["captions"] {
		t.Errorf("%d tables have %d captions", count["tables"], count["captions"])
	}
	// 2 ROC plots with 2 curves each, 2 histograms for each detector, 4 strips in 2 layers.
	if count["map img"] != 2 || count["details"] != 3 || count["circle"] != 4 {
		t.Errorf("elements: %v", count)
	}
	for _, s := range []string{
		"cifar10 with resnet18_32x32", "NAC is weak on near-OOD.", "svhn", "mnist 10 of 70,000", "95.06 ± 0.00 %",
		"FPR@95", "AUPR-Out", "s1", "Parameter search", "4 combinations", "chosen", "90.00", "51.00",
		"Most confusing images", "Coverage", "M=50, O=30, alpha=100, sigmoid(o*g_kl)", "nac.k = 50", "tells training from validation", "made", "1 January 1970",
		hostile + ": not an image", "<b>cat</b>",
	} {
		if !strings.Contains(text, s) {
			t.Errorf("the page does not say %q", s)
		}
	}
	for i := range p.Mean.Methods {
		m := p.Mean.Methods[i]
		if want := percent(m.Far[0].Result.AUROC) + " ± " + percent(p.Std.Methods[i].Far[0].Result.AUROC); !strings.Contains(text, want) {
			t.Errorf("%s: no %q", m.Key, want)
		}
	}
}

func TestPageOfOneRunWithoutFigures(t *testing.T) {
	r := small(t, 1)
	r.Scores = nil // as from report.json
	_, text, _ := parse(t, Page{Reports: []*openood.Report{r}})
	for _, s := range []string{"ROC curves", "Coverage", "Parameter search", "Most confusing", "±", "Training runs"} {
		if s != "±" && strings.Contains(text, s) {
			t.Errorf("%q without anything to show", s)
		}
	}
	if !strings.Contains(text, percent(r.Methods[0].Near[0].Result.FPR95)) {
		t.Error("no table")
	}
}

func TestPageRefuses(t *testing.T) {
	for name, spoil := range map[string]func(p *Page){
		"no reports":           func(p *Page) { p.Reports = nil },
		"no detectors":         func(p *Page) { p.Reports[0].Methods = nil },
		"no deviations":        func(p *Page) { p.Std = nil },
		"runs without names":   func(p *Page) { p.Runs = p.Runs[:1] },
		"a set without scores": func(p *Page) { p.Reports[0].Scores = p.Reports[0].Scores[:2] },
		"too few scores":       func(p *Page) { p.Reports[0].Scores[0].Scores[0].Values = nil },
		"a best beyond":        func(p *Page) { p.Search.Best = 4 },
		"choices left out":     func(p *Page) { p.Search.Points[2].Choices = nil },
	} {
		p := whole(t)
		spoil(&p)
		if err := p.Write(new(bytes.Buffer)); err == nil || !strings.HasPrefix(err.Error(), "report: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A page of CIFAR-10's size with every detector can be sent by mail.
func TestPageSize(t *testing.T) {
	var keys []string
	for i := range 22 {
		keys = append(keys, fmt.Sprintf("detector%d", i))
	}
	r := made(t, 1, keys, 9000, map[string]int{"cifar100": 9000, "tin": 7793}, map[string]int{"mnist": 70000, "svhn": 26032, "texture": 5640, "places365": 35195})
	p := whole(t)
	p.Reports, p.Runs, p.Mean, p.Std = []*openood.Report{r}, nil, nil, nil
	_, _, size := parse(t, p)
	t.Logf("%d bytes", size)
	if size > 2<<20 {
		t.Errorf("%d bytes", size)
	}
}

// The drawn curve encloses the AUROC.
func TestROCPath(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, shift := range []float64{0, 0.5, 3} {
		id, ood := make([]float64, 9000), make([]float64, 5000)
		for i := range id {
			id[i] = random.NormFloat64() + shift
		}
		for i := range ood {
			ood[i] = math.Round(random.NormFloat64()*10) / 10 // with ties
		}
		want, err := metric.AUROC(id, ood)
		if err != nil {
			t.Fatal(err)
		}
		var area, x0, y0 float64
		for i, p := range strings.Split(rocPath(id, ood)[1:], "L") {
			var x, y float64
			if _, err := fmt.Sscan(p, &x, &y); err != nil {
				t.Fatal(err)
			}
			x, y = (x-rocLeft)/rocSide, 1-(y-rocTop)/rocSide
			if i > 0 {
				area += (x - x0) * (y + y0) / 2
			}
			x0, y0 = x, y
		}
		if x0 != 1 || y0 != 1 || math.Abs(area-want) > 0.003 {
			t.Errorf("the curve encloses %.4f and ends at %v, %v; AUROC is %.4f", area, x0, y0, want)
		}
	}
}

func TestHistogram(t *testing.T) {
	id, ood := []float64{1, 2, 3, 4}, make([]float64, 100)
	for i := range ood {
		ood[i] = float64(i) / 50
	}
	low, high, cut := scoreRange(id, ood)
	if low != 0 || high != 3 || !cut {
		t.Errorf("range %v to %v, cut %v", low, high, cut)
	}
	sum := 0.0
	for _, s := range shares(id, low, high) {
		sum += s
	}
	if math.Abs(sum-1) > 1e-12 {
		t.Errorf("shares sum to %v", sum)
	}
	h := newHistogram(id, ood, low, high)
	if want := histLeft + histWidth*1.88/3; math.Abs(h.Threshold-want) > 1e-9 {
		t.Errorf("95 %% of the OOD scores are left of %v, want %v", h.Threshold, want)
	}
	// All scores alike.
	low, high, cut = scoreRange([]float64{7, 7}, []float64{7})
	if h := newHistogram([]float64{7, 7}, []float64{7}, low, high); cut || strings.Contains(h.ID+h.OOD, "NaN") {
		t.Errorf("equal scores: %v", h)
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{{0, 1, "[0 0.2 0.4 0.6000000000000001 0.8 1]"}, {-3, 40, "[0 10 20 30 40]"}, {0.62, 0.93, "[0.7000000000000001 0.8 0.9]"}, {-1e6, -9e5, "[-1e+06 -980000 -960000 -940000 -920000 -900000]"}} {
		if got := fmt.Sprint(niceTicks(c.low, c.high, 5)); got != c.want {
			t.Errorf("%v to %v: %s, want %s", c.low, c.high, got, c.want)
		}
	}
}

func TestMaps(t *testing.T) {
	for _, m := range maps(t) {
		img, err := png.Decode(bytes.NewReader(m.picture))
		if err != nil {
			t.Fatal(err)
		}
		b := img.Bounds()
		if b.Dx() > mapColumns || b.Dy() > mapRows || b.Dx() > m.Settings.M-1 || b.Dy() > m.Neurons || b.Dy() == 0 {
			t.Errorf("%s: a picture of %v for %d neurons with %d bins", m.Settings.Layer, b, m.Neurons, m.Settings.M-1)
		}
		if m.First < 0 || m.Last < m.First || m.Last >= m.Settings.M-1 || m.Reached <= 0 || m.Reached >= 1 || m.Covered <= 0 || m.Covered > 1 {
			t.Errorf("%s: bins %d to %d, %v reached, %v covered", m.Settings.Layer, m.First, m.Last, m.Reached, m.Covered)
		}
		// The outermost columns are not all dark.
		for _, x := range []int{0, b.Dx() - 1} {
			bright := false
			for y := range b.Dy() {
				bright = bright || img.At(x, y) != mapColours[0]
			}
			if !bright {
				t.Errorf("%s: column %d is empty", m.Settings.Layer, x)
			}
		}
	}
}

func TestLandscape(t *testing.T) {
	v, err := newLandscape(whole(t).Search)
	if err != nil {
		t.Fatal(err)
	}
	s := v.Layers[0].Strips
	if len(v.Layers) != 2 || len(s) != 2 || s[1].Low != 0.875 || s[1].High != 0.9 || !s[1].Chosen || s[0].Chosen || s[0].X0 != stripLeft || s[1].X1 != stripLeft+stripWidth {
		t.Errorf("%+v", v.Layers)
	}
	if v, err := newLandscape(nil); v != nil || err != nil {
		t.Errorf("no search: %v, %v", v, err)
	}
}

// The thumbnails are those of the right images, greyscale ones as such.
func TestConfusing(t *testing.T) {
	p := whole(t)
	v, err := newView(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Confusing) != 3 || v.Main != "nac" {
		t.Fatalf("%d sets by %s", len(v.Confusing), v.Main)
	}
	tin, id := v.Confusing[0], v.Confusing[2]
	if tin.Images[0].Path != hostile || tin.Images[0].Share != 1 || tin.Images[0].Score != 9 {
		t.Errorf("the most confusing image is %+v", tin.Images[0])
	}
	if n := len(id.Images) + id.Missing; n != shown {
		t.Errorf("%d ID images", n)
	}
	for i, x := range id.Images {
		if x.Width > maxThumbnail || x.Height > maxThumbnail || i > 0 && x.Score < id.Images[i-1].Score {
			t.Errorf("%+v", x)
		}
	}
}

// The report of a search alone draws the same landscape.
func TestSearchPage(t *testing.T) {
	p := SearchPage{Of: "fashion <b>", Network: "resnet20", Search: whole(t).Search, Summary: "All 4 combinations.", Warning: "too good", Facts: [][2]string{{"space", "toy"}}}
	write := func(p interface{ Write(io.Writer) error }) string {
		var b strings.Builder
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	section := func(s string) string {
		_, s, _ = strings.Cut(s, `<section id="search">`)
		s, _, found := strings.Cut(s, "</section>")
		if !found {
			t.Fatal("no landscape")
		}
		return s
	}
	text := write(p)
	if section(text) != section(write(whole(t))) {
		t.Error("the landscape differs from that of a benchmark's report")
	}
	for _, s := range []string{"fashion &lt;b&gt;", "too good", "90.00", "51.00", "<td>M=500 O=5</td>", "toy"} {
		if !strings.Contains(text, s) {
			t.Errorf("the page lacks %q", s)
		}
	}
	if i, j := strings.Index(text, ">90.00</td><td"), strings.Index(text, ">87.50</td><td"); i < 0 || j < i {
		t.Errorf("the best combination does not come first: %d, %d", i, j)
	}
	for _, s := range []*Landscape{nil, {}, {Best: 3, Points: make([]Point, 1)}} {
		p.Search = s
		if err := p.Write(io.Discard); err == nil {
			t.Errorf("%+v makes a page", s)
		}
	}
}
