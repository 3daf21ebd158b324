package openood

import (
	"errors"
	"fmt"
	"math"

	"nac/metric"
)

// Average returns the means over reports of several training runs of one network
// on one benchmark, and their standard deviations, as reports of the same form.
// The deviation is that of the runs themselves (divided by their number), as
// OpenOOD's. Where the reports differ in anything but numbers is an error. Images,
// stages, settings and notes of the results are those of the first report.
func Average(reports []*Report) (mean, std *Report, err error) {
	if len(reports) == 0 {
		return nil, nil, errors.New("openood: no reports to average")
	}
	m, s := *reports[0], *reports[0]
	mean, std = &m, &s
	var values [2][]*float64 // of mean and std, in one order
	for i, r := range []*Report{mean, std} {
		r.Scores = nil
		r.Methods = cloneMethods(r.Methods)
		r.Accuracy.CSID = append([]SetAccuracy(nil), r.Accuracy.CSID...)
		values[i] = numbers(r)
	}
	each := make([][]*float64, len(reports))
	for i, r := range reports {
		if err := sameForm(reports[0], r); err != nil {
			return nil, nil, err
		}
		each[i] = numbers(r)
	}
	n := float64(len(reports))
	for k := range values[0] {
		sum, squares := 0.0, 0.0
		for _, v := range each {
			sum += *v[k]
		}
		for _, v := range each {
			d := *v[k] - sum/n
			squares += d * d
		}
		*values[0][k], *values[1][k] = sum/n, math.Sqrt(squares/n)
	}
	return mean, std, nil
}

// sameForm says in what two reports differ besides numbers.
func sameForm(a, b *Report) error {
	form := func(r *Report) (s string) {
		s = r.Benchmark + ", " + r.Network
		for _, c := range r.Accuracy.CSID {
			s += ", csID " + c.Set
		}
		for _, m := range r.Methods {
			s += ", " + m.Key
			for _, t := range m.tables() {
				for _, row := range *t.rows {
					s += fmt.Sprintf(", %s of %d images", row.Set, row.Images)
				}
			}
		}
		return s
	}
	if x, y := form(a), form(b); x != y {
		return fmt.Errorf("openood: training runs cannot be averaged: one is of %s; another of %s", x, y)
	}
	return nil
}

// table is a group of rows of a method with their mean.
type table struct {
	rows *[]Row
	mean **metric.Result
}

func (m *MethodResult) tables() []table {
	t := []table{{&m.Near, &m.NearMean}, {&m.Far, &m.FarMean}}
	if f := m.FullSpectrum; f != nil {
		t = append(t, table{&f.Near, &f.NearMean}, table{&f.Far, &f.FarMean})
	}
	return t
}

func cloneMethods(methods []MethodResult) []MethodResult {
	methods = append([]MethodResult(nil), methods...)
	for i := range methods {
		m := &methods[i]
		if m.FullSpectrum != nil {
			f := *m.FullSpectrum
			m.FullSpectrum = &f
		}
		if m.Overfit != nil {
			o := *m.Overfit
			m.Overfit = &o
		}
		for _, t := range m.tables() {
			*t.rows = append([]Row(nil), *t.rows...)
			if *t.mean != nil {
				r := **t.mean
				*t.mean = &r
			}
		}
	}
	return methods
}

// numbers returns where the results of a report are.
func numbers(r *Report) (all []*float64) {
	result := func(r *metric.Result) { all = append(all, &r.FPR95, &r.AUROC, &r.AUPRIn, &r.AUPROut) }
	all = append(all, &r.Accuracy.Test, &r.Accuracy.Val, &r.Accuracy.FullSpectrum)
	for i := range r.Accuracy.CSID {
		all = append(all, &r.Accuracy.CSID[i].Accuracy)
	}
	for i := range r.Methods {
		m := &r.Methods[i]
		for _, t := range m.tables() {
			for j := range *t.rows {
				result(&(*t.rows)[j].Result)
			}
			if *t.mean != nil {
				result(*t.mean)
			}
		}
		if m.Overfit != nil {
			all = append(all, &m.Overfit.AUROC)
		}
	}
	return all
}
