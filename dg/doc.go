// Package dg is domain generalisation: networks are trained on some domains of a
// data set and judged on one that they never saw, in the ways of DomainBed
// (Gulrajani and Lopez-Paz, 2021), and the checkpoint that generalises best is chosen
// by NAC-ME, the coverage of neurons on the training domains (Liu et al., 2024).
//
// A [Dataset] has domains; each is split into a larger in-split, trained on, and an
// out-split, held out. A [Run] trains one network with some domains left out and
// leaves a [Record] at every checkpoint. [Select] chooses among records by
// validation, coverage and others, and says how well each goes with the accuracy on
// the unseen domain.
package dg
