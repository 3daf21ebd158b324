package dg

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"nac/internal/mt19937"
)

// digitSide is the side of MNIST's images.
const digitSide = 28

// digits are all 70,000 images of MNIST, those for training first.
type digits struct {
	pixels []uint8 // of one image after the other
	labels []uint8
}

func (d *digits) image(i int) []uint8 {
	return d.pixels[i*digitSide*digitSide : (i+1)*digitSide*digitSide]
}

// readDigits reads the four files of MNIST, as they are published (.gz) or unpacked.
func readDigits(dir string) (*digits, error) {
	d := &digits{}
	for _, part := range []string{"train", "t10k"} {
		pixels, shape, err := readIDX(dir, part+"-images", 3)
		if err != nil {
			return nil, err
		}
		labels, counts, err := readIDX(dir, part+"-labels", 1)
		if err != nil {
			return nil, err
		}
		if shape[1] != digitSide || shape[2] != digitSide || shape[0] != counts[0] {
			return nil, fmt.Errorf("%s: %d images of %dx%d and %d labels; MNIST's are 28x28", dir, shape[0], shape[1], shape[2], counts[0])
		}
		d.pixels = append(d.pixels, pixels...)
		d.labels = append(d.labels, labels...)
	}
	for i, l := range d.labels {
		if l > 9 {
			return nil, fmt.Errorf("%s: image %d has the label %d", dir, i, l)
		}
	}
	return d, nil
}

// readIDX reads the file NAME-idxD-ubyte, under its published names, of bytes in so
// many dimensions.
func readIDX(dir, name string, dimensions int) (data []byte, shape []int, err error) {
	var tried []string
	for _, folder := range []string{dir, filepath.Join(dir, "MNIST", "raw")} {
		for _, dot := range []string{"-", "."} {
			for _, ending := range []string{".gz", ""} {
				path := filepath.Join(folder, fmt.Sprintf("%s%sidx%d-ubyte%s", name, dot, dimensions, ending))
				f, err := os.Open(path)
				if errors.Is(err, fs.ErrNotExist) {
					tried = append(tried, path)
					continue
				}
				if err != nil {
					return nil, nil, err
				}
				defer f.Close()
				var r io.Reader = bufio.NewReader(f)
				if ending == ".gz" {
					if r, err = gzip.NewReader(r); err != nil {
						return nil, nil, fmt.Errorf("%s: %w", path, err)
					}
				}
				if data, shape, err = decodeIDX(r, dimensions); err != nil {
					return nil, nil, fmt.Errorf("%s: %w", path, err)
				}
				return data, shape, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("MNIST's file %s is not there; put MNIST's four files (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-...) into that folder", tried[0])
}

// maxIDX bounds a file, so that a damaged head is told and not allocated.
const maxIDX = 1 << 30

func decodeIDX(r io.Reader, dimensions int) (data []byte, shape []int, err error) {
	head := make([]byte, 4+4*dimensions)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, nil, fmt.Errorf("no head of an IDX file: %w", err)
	}
	if head[0] != 0 || head[1] != 0 || head[2] != 8 || int(head[3]) != dimensions {
		return nil, nil, fmt.Errorf("not an IDX file of bytes in %d dimensions", dimensions)
	}
	n := 1
	for i := range dimensions {
		d := int(binary.BigEndian.Uint32(head[4+4*i:]))
		if d == 0 || d > maxIDX/n {
			return nil, nil, fmt.Errorf("a dimension of %d", d)
		}
		n *= d
		shape = append(shape, d)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, nil, fmt.Errorf("cut off: %w", err)
	}
	return data, shape, nil
}

// digitDomain is a domain of MNIST images, values from 0 to 1.
type digitDomain struct {
	pixels   [][]uint8
	labels   []uint8
	channels int
	// colour is the channel that the digit is in; nil where there is one channel.
	colour []uint8
}

func (d *digitDomain) Len() int        { return len(d.pixels) }
func (d *digitDomain) Label(i int) int { return int(d.labels[i]) }

func (d *digitDomain) Image(i int, _ *rand.Rand, dst []float32) error {
	const plane = digitSide * digitSide
	if d.colour != nil {
		clear(dst[:d.channels*plane])
		dst = dst[int(d.colour[i])*plane:]
	}
	for k, v := range d.pixels[i] {
		dst[k] = float32(v) / 255
	}
	return nil
}

// deal shuffles the images and deals them to n domains, as DomainBed does.
func (d *digits) deal(m *mt19937.Source, n int) []*digitDomain {
	domains := make([]*digitDomain, n)
	for i := range domains {
		domains[i] = &digitDomain{channels: 1}
	}
	for i, from := range m.TorchPerm(len(d.labels)) {
		to := domains[i%n]
		to.pixels = append(to.pixels, d.image(from))
		to.labels = append(to.labels, d.labels[from])
	}
	return domains
}

// rotatedMNIST turns each domain's digits by its angle, against the clock.
func rotatedMNIST(d *digits, seed uint32) *Dataset {
	set := &Dataset{Name: "RotatedMNIST", Channels: 1, Size: digitSide}
	for c := range 10 {
		set.ClassNames = append(set.ClassNames, fmt.Sprint(c))
	}
	for i, domain := range d.deal(mt19937.New(seed), 6) {
		angle := 15 * i
		if angle > 0 {
			turned := make([]uint8, len(domain.pixels)*digitSide*digitSide)
			workers := runtime.GOMAXPROCS(0)
			var wait sync.WaitGroup
			for w := range workers {
				wait.Go(func() {
					for k := w; k < len(domain.pixels); k += workers {
						to := turned[k*digitSide*digitSide : (k+1)*digitSide*digitSide]
						rotate(to, domain.pixels[k], digitSide, float64(angle))
						domain.pixels[k] = to
					}
				})
			}
			wait.Wait()
		}
		set.Domains = append(set.Domains, Domain{fmt.Sprint(angle), domain})
	}
	return set
}

// coloredMNIST asks whether a digit is below 5; a quarter of the labels is wrong, and
// the colour, the channel, goes with the label except for a share of the domain's
// own.
func coloredMNIST(d *digits, seed uint32) *Dataset {
	set := &Dataset{Name: "ColoredMNIST", Channels: 2, Size: digitSide, ClassNames: []string{"5 to 9", "0 to 4"}}
	m := mt19937.New(seed)
	flips := func(n int, share float32) []uint8 {
		v := make([]uint8, n)
		for i := range v {
			if m.TorchFloat32() < share {
				v[i] = 1
			}
		}
		return v
	}
	names := []string{"+90%", "+80%", "-90%"}
	shares := []float32{0.1, 0.2, 0.9}
	for i, domain := range d.deal(m, len(names)) {
		domain.channels = 2
		wrong := flips(domain.Len(), 0.25)
		domain.colour = flips(domain.Len(), shares[i])
		for k, digit := range domain.labels {
			label := wrong[k]
			if digit < 5 {
				label ^= 1
			}
			domain.labels[k] = label
			domain.colour[k] ^= label
		}
		set.Domains = append(set.Domains, Domain{names[i], domain})
	}
	return set
}
