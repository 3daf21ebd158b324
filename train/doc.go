// Package train trains the networks of package arch: losses, optimizers, schedules,
// augmentation, averages of weights, checkpoints, and a loop for classifiers.
//
// Everything random follows from a seed and the number of the step, nothing from
// the number of processors or from what ran before: a run that is resumed gives
// the bits of one that never stopped. Formulas and defaults are PyTorch's.
package train
