// Package quickstart holds the benchmark that needs no download: a trained
// ResNet-20, the Fashion-MNIST images it knows, and images it has never seen,
// all embedded in the program.
//
// The files are laid out as OpenOOD lays out its data, so the job that runs on a
// downloaded benchmark runs on these unchanged. The classifier knows eight of
// Fashion-MNIST's ten classes, labels 0 to 7; near-OOD are the two classes held
// out of its training, bag and ankle boot; far-OOD are MNIST's digits.
//
//	checkpoints/fashion_resnet20.safetensors
//	benchmark_imglist/fashion/main_train_fashion.txt  1,000 training images, for coverage
//	benchmark_imglist/fashion/sub_train_fashion.txt     400 other training images, for the overfitting check
//	benchmark_imglist/fashion/val_fashion.txt           400 test images for validation
//	benchmark_imglist/fashion/test_fashion.txt        1,000 other test images
//	benchmark_imglist/fashion/val_heldout.txt           200 bags and boots for validation
//	benchmark_imglist/fashion/test_bag.txt              500, near-OOD
//	benchmark_imglist/fashion/test_ankle_boot.txt       500, near-OOD
//	benchmark_imglist/fashion/test_mnist.txt          1,000, far-OOD
//	images_classic/...                                28x28 grey PNG; lists are relative to here
//	NOTICE, licenses/                                 where the images come from and their terms
//
// How it was made: bench/quickstart/README.md.
package quickstart

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

//go:embed quickstart.zip
var archive []byte

// PyTorch are the results of this benchmark's job in PyTorch, Pillow and scikit-learn
// as JSON: ID accuracy, tables, and logits and scores of some images. How they were
// made: bench/quickstart.
//
//go:embed testdata/pytorch.json
var PyTorch []byte

const (
	// Benchmark names the folder of lists below benchmark_imglist and is the
	// suffix of the ID lists.
	Benchmark = "fashion"
	// Arch is the key of the checkpoint's architecture; its input is 3x32x32.
	Arch = "resnet20"
	// Checkpoint is the path in FS of the network's weights (safetensors).
	Checkpoint = "checkpoints/fashion_resnet20.safetensors"
	// Mean and Std normalise an image after Resize(32) and division by 255, the
	// same in all three channels. They are those of the training images.
	Mean, Std = 0.2752, 0.3336
)

// ClassNames returns the names of labels 0 to 7, which are also the names of
// the image folders.
func ClassNames() []string {
	return []string{"tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker"}
}

var open = sync.OnceValues(func() (*zip.Reader, error) {
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, fmt.Errorf("quickstart: embedded archive: %w", err)
	}
	return r, nil
})

// FS returns the embedded files. It reads from memory and may be used by many
// goroutines at once. An error means that the program itself is damaged.
func FS() (fs.FS, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Extract writes all files below dir, which is made if need be. A file that
// already exists is not replaced: that is an error matching fs.ErrExist.
func Extract(dir string) error {
	files, err := FS()
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, files); err != nil {
		return fmt.Errorf("quickstart: extract to %s: %w", dir, err)
	}
	return nil
}
