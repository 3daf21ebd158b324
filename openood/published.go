package openood

// Published are the figures of a benchmark that others have published, in percent.
type Published struct {
	Benchmark, Arch string
	Accuracy        float64 // on the ID test set
	// AUROC is the mean over the near-OOD and the far-OOD sets by detector; 0 where
	// none was published.
	AUROC map[string]struct{ Near, Far float64 }
}

// PublishedFigures returns figures of OpenOOD v1.5 (Zhang et al., 2023, and its
// leaderboard) and of NAC-UE (Liu et al., ICLR 2024): means over the training runs of
// OpenOOD's ResNet-18 checkpoints, and torchvision's ResNet-50 (V1).
func PublishedFigures() []Published {
	type pair = struct{ Near, Far float64 }
	return []Published{
		{"cifar10", "resnet18_32x32", 95.06, map[string]pair{"msp": {88.03, 90.73}, "ebo": {87.58, 91.21}, "nac": {0, 94.60}}},
		{"cifar100", "resnet18_32x32", 77.25, map[string]pair{"msp": {80.27, 77.76}, "ebo": {80.91, 79.77}, "nac": {75.90, 86.98}}},
		{"imagenet200", "resnet18_224x224", 86.37, map[string]pair{"msp": {83.34, 90.13}, "ebo": {82.50, 90.86}}},
		{"imagenet", "resnet50", 76.18, map[string]pair{"msp": {76.02, 85.23}, "ebo": {75.89, 89.47}, "nac": {74.43, 0}}},
	}
}
