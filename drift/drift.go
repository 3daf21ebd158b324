// Package drift tells whether the scores of a running detector still look like those
// of its calibration images.
//
// A [Monitor] keeps two tests. The first is sequential: every score becomes a
// conformal p-value, every p-value a bet, and the bets a Shiryaev-Roberts statistic.
// While the images are exchangeable with the calibration images, the mean number of
// images to a false alarm is at least RunLength, whatever the distribution of scores.
// The second is the two-sample Kolmogorov-Smirnov test of the last Window scores,
// which describes the present and has no such guarantee when looked at again and again.
package drift

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Settings of a Monitor. What is zero gets a default.
type Settings struct {
	// Window is the number of last scores that are kept; 1000 by default.
	Window int `json:"window"`
	// RunLength is the least mean number of images between false alarms; 100,000 by default.
	RunLength float64 `json:"run_length"`
	// Buckets of the histograms; 40 by default.
	Buckets int `json:"buckets"`
}

// Defaults fills in what is zero, and checks the rest.
func (s *Settings) Defaults() error {
	if s.Window == 0 {
		s.Window = 1000
	}
	if s.RunLength == 0 {
		s.RunLength = 100_000
	}
	if s.Buckets == 0 {
		s.Buckets = 40
	}
	if s.Window < 1 || s.Window > 1_000_000 || s.Buckets < 1 || s.Buckets > 1000 || !(s.RunLength > 1) || math.IsInf(s.RunLength, 0) {
		return fmt.Errorf("drift: window %d, run length %v, %d buckets: want 1 to 1,000,000 scores, more than 1 image, 1 to 1000 buckets",
			s.Window, s.RunLength, s.Buckets)
	}
	return nil
}

// bets are the powers k of the calibrator k*p^(k-1) (Vovk and Wang, "E-values:
// calibration, combination and applications", 2021), played on low p-values and on
// high ones: scores may drift either way.
var bets = [...]float64{0.3, 0.5, 0.7, 0.9}

// Monitor follows the scores of one detector. It is not for concurrent use.
type Monitor struct {
	settings    Settings
	calibration []float64 // sorted
	state       State
	urn         fenwick
	random      *rand.Rand
}

// State is all that a Monitor must remember. It is for storing.
type State struct {
	// Images is the number of scores seen.
	Images int64 `json:"images"`
	// Last are the last Window scores, oldest first once read by Monitor.State.
	Last []float64 `json:"last"`
	next int
	// Gaps counts the scores seen below, between and above the calibration scores.
	Gaps []int64 `json:"gaps"`
	// Low and High are the statistics of each bet.
	Low  [len(bets)]float64 `json:"low"`
	High [len(bets)]float64 `json:"high"`
	// Alarms were raised so far, the latest at image LastAlarm.
	Alarms    int64 `json:"alarms"`
	LastAlarm int64 `json:"last_alarm"`
}

// New returns a Monitor of scores against those of calibration images, in any order.
func New(calibration []float64, s Settings) (*Monitor, error) {
	if err := s.Defaults(); err != nil {
		return nil, err
	}
	if len(calibration) == 0 {
		return nil, errors.New("drift: no calibration scores")
	}
	m := &Monitor{settings: s, calibration: slices.Sorted(slices.Values(calibration))}
	if !finite(m.calibration[0]) || !finite(m.calibration[len(calibration)-1]) {
		return nil, errors.New("drift: a calibration score is not finite")
	}
	m.random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	m.state.Gaps = make([]int64, len(calibration)+1)
	m.urn = newFenwick(m.state.Gaps)
	return m, nil
}

// Resume takes up what a Monitor of the same calibration scores remembered. On an
// error the Monitor is unchanged.
func (m *Monitor) Resume(s State) error {
	if len(s.Gaps) != len(m.calibration)+1 {
		return fmt.Errorf("drift: stored counts are of %d calibration images, there are %d", len(s.Gaps)-1, len(m.calibration))
	}
	sum := int64(0)
	for _, n := range s.Gaps {
		if n < 0 {
			return errors.New("drift: a stored count is negative")
		}
		sum += n
	}
	ok := sum == s.Images && int64(len(s.Last)) <= s.Images && s.Alarms >= 0 && s.LastAlarm >= 0 && s.LastAlarm <= s.Images
	for _, x := range s.Last {
		ok = ok && finite(x)
	}
	for i := range bets {
		ok = ok && finite(s.Low[i]) && s.Low[i] >= 0 && finite(s.High[i]) && s.High[i] >= 0
	}
	if !ok {
		return errors.New("drift: the stored state contradicts itself")
	}
	s.Gaps = slices.Clone(s.Gaps)
	s.Last = slices.Clone(s.Last[max(0, len(s.Last)-m.settings.Window):])
	s.next = 0
	m.state, m.urn = s, newFenwick(s.Gaps)
	return nil
}

// Images is the number of scores seen.
func (m *Monitor) Images() int64 { return m.state.Images }

// State returns what there is to remember.
func (m *Monitor) State() State {
	s := m.state
	s.Last = append(slices.Clone(s.Last[s.next:]), s.Last[:s.next]...)
	s.Gaps = slices.Clone(s.Gaps)
	s.next = 0
	return s
}

// Add takes the next score and tells whether it raises an alarm, upon which the
// sequential test begins anew. A score that is not finite is an error.
func (m *Monitor) Add(score float64) (alarm bool, err error) {
	if !finite(score) {
		return false, fmt.Errorf("drift: a score of %v", score)
	}
	p := m.pValue(score)
	s := &m.state
	total := 0.0
	for i, k := range bets {
		s.Low[i] = (1 + s.Low[i]) * k * math.Pow(p, k-1)
		s.High[i] = (1 + s.High[i]) * k * math.Pow(1-p, k-1)
		total += s.Low[i] + s.High[i]
	}
	s.Images++
	if len(s.Last) < m.settings.Window {
		s.Last = append(s.Last, score)
	} else {
		s.Last[s.next] = score
		s.next = (s.next + 1) % len(s.Last)
	}
	if total/float64(2*len(bets)) < m.settings.RunLength {
		return false, nil
	}
	s.Alarms++
	s.LastAlarm = s.Images
	s.Low, s.High = [len(bets)]float64{}, [len(bets)]float64{}
	return true, nil
}

// pValue ranks a score among the calibration scores and all scores seen. Under
// exchangeability the ranks are independent and uniform (Vovk, Nouretdinov and
// Gammerman, "Testing exchangeability on-line", 2003), which a comparison with the
// calibration images alone is not: one unlucky choice of these would raise alarms
// for ever. Of the scores seen only the counts between calibration scores are
// kept; the place among those of the same gap is drawn, which has the same
// distribution, for they are exchangeable. Ties with calibration scores are broken alike.
func (m *Monitor) pValue(score float64) float64 {
	low, _ := slices.BinarySearch(m.calibration, score)
	high := low
	for high < len(m.calibration) && m.calibration[high] == score {
		high++
	}
	// A gap holds its count + 1 places.
	before := m.urn.sum(low) + int64(low)
	places := m.urn.sum(high+1) + int64(high+1) - before
	at := before + m.random.Int64N(places)
	gap := low
	for gap < high && at >= m.urn.sum(gap+1)+int64(gap+1) {
		gap++
	}
	m.urn.add(gap)
	m.state.Gaps[gap]++
	n := float64(m.state.Images) + float64(len(m.calibration)) + 1
	// Within its place the score lies anywhere, and never at 0 or 1, where bets are infinite.
	return min(max((float64(at)+m.random.Float64())/n, 1e-15), 1-1e-15)
}

// Report says how the scores compare with the calibration images'.
type Report struct {
	// Images is the number of scores seen, Window of those kept.
	Images int64 `json:"images"`
	Window int   `json:"window"`
	// Statistic is that of the sequential test; it raises an alarm at RunLength, which
	// is also the least mean number of images to a false alarm.
	Statistic float64 `json:"statistic"`
	RunLength float64 `json:"run_length"`
	Alarms    int64   `json:"alarms"`
	LastAlarm int64   `json:"last_alarm_at_image,omitempty"`
	// Drift is true from an alarm until a whole window of images has passed without.
	Drift bool `json:"drift"`
	// KS is the largest distance between the distributions of the window's and of the
	// calibration scores, KSP its p-value (asymptotic); 0 and 1 if there are no scores.
	KS  float64 `json:"ks"`
	KSP float64 `json:"ks_p_value"`
	// Edges bound the histograms' buckets; scores beyond them are in the outer ones.
	Edges       []float64 `json:"edges"`
	Calibration []int     `json:"calibration"`
	Recent      []int     `json:"recent"`
}

// Report describes the present.
func (m *Monitor) Report() Report {
	s := &m.state
	r := Report{
		Images: s.Images, Window: len(s.Last), RunLength: m.settings.RunLength,
		Alarms: s.Alarms, LastAlarm: s.LastAlarm, KSP: 1, Edges: m.Edges(),
		Drift: s.Alarms > 0 && s.Images-s.LastAlarm < int64(m.settings.Window),
	}
	for i := range bets {
		r.Statistic += (s.Low[i] + s.High[i]) / float64(2*len(bets))
	}
	r.Calibration, r.Recent = histogram(m.calibration, r.Edges), histogram(s.Last, r.Edges)
	if len(s.Last) > 0 {
		r.KS, r.KSP = KolmogorovSmirnov(m.calibration, slices.Sorted(slices.Values(s.Last)))
	}
	return r
}

// Edges bound the buckets of histograms, evenly, with room for scores lower than all
// calibration scores.
func (m *Monitor) Edges() []float64 {
	low, high := m.calibration[0], m.calibration[len(m.calibration)-1]
	if low == high {
		low, high = low-1, high+1
	}
	low -= (high - low) / 2
	edges := make([]float64, m.settings.Buckets+1)
	for i := range edges {
		edges[i] = low + (high-low)*float64(i)/float64(m.settings.Buckets)
	}
	return edges
}

func histogram(scores, edges []float64) []int {
	counts := make([]int, len(edges)-1)
	for _, s := range scores {
		i, _ := slices.BinarySearch(edges, s)
		counts[min(max(i-1, 0), len(counts)-1)]++
	}
	return counts
}

// KolmogorovSmirnov returns the largest distance between the distribution functions of
// two sorted samples and its asymptotic p-value, with the small-sample correction of
// Stephens ("Use of the Kolmogorov-Smirnov, Cramer-von Mises and related statistics
// without extensive tables", 1970).
func KolmogorovSmirnov(a, b []float64) (distance, p float64) {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x := min(a[i], b[j])
		for i < len(a) && a[i] == x {
			i++
		}
		for j < len(b) && b[j] == x {
			j++
		}
		distance = max(distance, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n := math.Sqrt(float64(len(a)) * float64(len(b)) / float64(len(a)+len(b)))
	x := (n + 0.12 + 0.11/n) * distance
	if x < 0.2 {
		return distance, 1 // the series below converges slowly; it is 1 to 12 digits
	}
	for k, sign := 1.0, 2.0; k <= 100; k, sign = k+1, -sign {
		p += sign * math.Exp(-2*k*k*x*x)
	}
	return distance, min(max(p, 0), 1)
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// fenwick adds up counts in logarithmic time (Fenwick, "A New Data Structure for
// Cumulative Frequency Tables", 1994).
type fenwick []int64

func newFenwick(counts []int64) fenwick {
	f := make(fenwick, len(counts)+1)
	for i, n := range counts {
		at := i + 1
		f[at] += n
		if up := at + at&-at; up < len(f) {
			f[up] += f[at]
		}
	}
	return f
}

func (f fenwick) add(i int) {
	for i++; i < len(f); i += i & -i {
		f[i]++
	}
}

// sum is that of the first n counts.
func (f fenwick) sum(n int) (sum int64) {
	for ; n > 0; n -= n & -n {
		sum += f[n]
	}
	return sum
}
