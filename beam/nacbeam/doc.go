// Package nacbeam runs nac on Apache Beam: the network runs on as many workers as there
// are, and what is merged is small.
//
//	images := nacbeam.ReadImages(s, []string{"train/"}, "")
//	scored, failed := nacbeam.Score(s, images, nacbeam.Detector{File: "detector.nac"})
//
// Results are those of one machine: counts are equal, scores to the last bit, metrics
// exactly, whatever the runner does with bundles, retries and order. A worker process
// has one network, and memory for one batch of each bundle at work. Images
// that cannot be read or computed come out as Failures, the dead letters.
package nacbeam
