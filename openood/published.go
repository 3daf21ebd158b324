package openood

// Figure is a mean over training runs and their standard deviation, in percent.
type Figure struct{ Mean, Std float64 }

// Published are the figures of a benchmark that others have published.
type Published struct {
	Benchmark, Arch string
	Runs            int    // training runs, each with a checkpoint of its own
	Accuracy        Figure // on the ID test set
	// AUROC is that of the near-OOD and of the far-OOD sets, by detector.
	AUROC map[string]struct{ Near, Far Figure }
}

// PublishedFigures returns figures of OpenOOD's leaderboard
// (https://zjysteven.github.io/OpenOOD), for the ResNet-18 checkpoints that OpenOOD
// offers, three training runs each, and for torchvision's networks. They were
// read from the files results/*.csv of the branch "leaderboard" of
// github.com/Jingkang50/OpenOOD, commit f969dfa of July 2024: rows of training
// CrossEntropy, as MSP, TempScale, MLS, EBO and NAC. Detectors that are left out have
// parameters that the leaderboard's entries were tuned in, or are fitted on all
// training images.
func PublishedFigures() []Published {
	type pair = struct{ Near, Far Figure }
	return []Published{
		// results/cifar10.csv. NAC's far figure is also in the reference's
		// README (github.com/BierOne/ood_coverage, figures/cifar10.png), as 94.60 ± 0.50.
		{"cifar10", "resnet18_32x32", 3, Figure{95.06, 0.30}, map[string]pair{
			"msp":          {Figure{88.03, 0.25}, Figure{90.73, 0.43}},
			"temp_scaling": {Figure{88.09, 0.31}, Figure{90.97, 0.52}},
			"mls":          {Figure{87.52, 0.47}, Figure{91.10, 0.89}},
			"ebo":          {Figure{87.58, 0.46}, Figure{91.21, 0.92}},
			"nac":          {Figure{90.93, 0.23}, Figure{94.60, 0.49}},
		}},
		// results/cifar100.csv
		{"cifar100", "resnet18_32x32", 3, Figure{77.25, 0.10}, map[string]pair{
			"msp":          {Figure{80.27, 0.11}, Figure{77.76, 0.44}},
			"temp_scaling": {Figure{80.90, 0.07}, Figure{78.74, 0.51}},
			"mls":          {Figure{81.05, 0.07}, Figure{79.67, 0.57}},
			"ebo":          {Figure{80.91, 0.08}, Figure{79.77, 0.61}},
			"nac":          {Figure{75.90, 0.42}, Figure{86.98, 0.37}},
		}},
		// results/imagenet200_ood.csv
		{"imagenet200", "resnet18_224x224", 3, Figure{86.37, 0.08}, map[string]pair{
			"msp":          {Figure{83.34, 0.06}, Figure{90.13, 0.09}},
			"temp_scaling": {Figure{83.69, 0.04}, Figure{90.82, 0.09}},
			"mls":          {Figure{82.90, 0.04}, Figure{91.11, 0.19}},
			"ebo":          {Figure{82.50, 0.05}, Figure{90.86, 0.21}},
			"nac":          {Figure{78.52, 0.20}, Figure{91.02, 0.29}},
		}},
		// results/imagenet1k_ood.csv: ResNet50, ViT-B/16 and Swin-T, "torchvision ckpt"
		{"imagenet", "resnet50", 1, Figure{76.18, 0}, map[string]pair{
			"msp":          {Figure{76.02, 0}, Figure{85.23, 0}},
			"temp_scaling": {Figure{77.14, 0}, Figure{87.56, 0}},
			"mls":          {Figure{76.46, 0}, Figure{89.57, 0}},
			"ebo":          {Figure{75.89, 0}, Figure{89.47, 0}},
			"nac":          {Figure{74.43, 0}, Figure{95.29, 0}},
		}},
		{"imagenet", "vit_b_16", 1, Figure{81.14, 0}, map[string]pair{
			"msp":          {Figure{73.52, 0}, Figure{86.04, 0}},
			"temp_scaling": {Figure{73.18, 0}, Figure{86.32, 0}},
			"mls":          {Figure{68.30, 0}, Figure{83.54, 0}},
			"ebo":          {Figure{62.41, 0}, Figure{78.98, 0}},
		}},
		{"imagenet", "swin_t", 1, Figure{81.59, 0}, map[string]pair{
			"msp":          {Figure{76.75, 0}, Figure{86.30, 0}},
			"temp_scaling": {Figure{76.98, 0}, Figure{86.73, 0}},
			"mls":          {Figure{75.66, 0}, Figure{84.80, 0}},
			"ebo":          {Figure{73.23, 0}, Figure{81.32, 0}},
		}},
	}
}
