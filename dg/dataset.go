package dg

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nac/imageset"
	"nac/train"
)

// Domain is one of the sources that a data set's images come from.
type Domain struct {
	Name    string
	Samples train.Samples
}

// Dataset is labelled images of several domains with the same classes.
type Dataset struct {
	Name    string
	Domains []Domain
	// ClassNames are the classes in the order of their labels.
	ClassNames []string
	// Channels is an image's number of channels; its side is Size.
	Channels, Size int
}

// Benchmark is a data set that has a name.
type Benchmark struct {
	Name  string
	About string
	// Folder is where it lies below the data folder; DomainBed's name.
	Folder string
	// Domains are those that it has, in DomainBed's order: of the sorted folders.
	Domains []string
	// Steps and CheckpointEvery are DomainBed's.
	Steps, CheckpointEvery int

	mnist func(m *digits, seed uint32) *Dataset
}

// Small tells whether it is made of MNIST's 28x28 images, which have
// hyperparameters and a network of their own.
func (b Benchmark) Small() bool { return b.mnist != nil }

// AnyFolder is the benchmark of a folder of domains that has no name of its own.
const AnyFolder = "folder"

var benchmarks = []Benchmark{
	{Name: "RotatedMNIST", About: "digits turned by 0 to 75 degrees; made of MNIST", Folder: "mnist", Domains: []string{"0", "15", "30", "45", "60", "75"}, Steps: 5001, CheckpointEvery: 100, mnist: rotatedMNIST},
	{Name: "ColoredMNIST", About: "digits whose colour goes with the label, or against it; made of MNIST", Folder: "mnist", Domains: []string{"+90%", "+80%", "-90%"}, Steps: 5001, CheckpointEvery: 100, mnist: coloredMNIST},
	{Name: "VLCS", About: "photographs of four collections, 5 classes", Folder: "VLCS", Domains: []string{"Caltech101", "LabelMe", "SUN09", "VOC2007"}, Steps: 5001, CheckpointEvery: 300},
	{Name: "PACS", About: "art, cartoons, photographs, sketches, 7 classes", Folder: "PACS", Domains: []string{"art_painting", "cartoon", "photo", "sketch"}, Steps: 5001, CheckpointEvery: 300},
	{Name: "OfficeHome", About: "art, clip art, products, photographs, 65 classes", Folder: "office_home", Domains: []string{"Art", "Clipart", "Product", "Real World"}, Steps: 5001, CheckpointEvery: 300},
	{Name: "TerraIncognita", About: "camera traps at four places, 10 classes", Folder: "terra_incognita", Domains: []string{"location_100", "location_38", "location_43", "location_46"}, Steps: 5001, CheckpointEvery: 300},
	{Name: "DomainNet", About: "six styles, 345 classes", Folder: "domain_net", Domains: []string{"clip", "info", "paint", "quick", "real", "sketch"}, Steps: 15001, CheckpointEvery: 1000},
	{Name: AnyFolder, About: "any folder of domains, each a folder of classes", Steps: 5001, CheckpointEvery: 300},
}

// Benchmarks lists the data sets that have names.
func Benchmarks() []Benchmark { return slices.Clone(benchmarks) }

// BenchmarkNames are the names of Benchmarks.
func BenchmarkNames() []string {
	var names []string
	for _, b := range benchmarks {
		names = append(names, b.Name)
	}
	return names
}

// FindBenchmark returns the benchmark of that name.
func FindBenchmark(name string) (Benchmark, error) {
	for _, b := range benchmarks {
		if b.Name == name {
			return b, nil
		}
	}
	return Benchmark{}, fmt.Errorf("no data set %q: want one of %s", name, strings.Join(BenchmarkNames(), ", "))
}

// OpenOptions say how a data set is opened.
type OpenOptions struct {
	// Seed is what MNIST's images are shuffled and coloured by, as DomainBed's --seed.
	Seed uint32
	// Size is the side that images of folders are brought to; 0 means 224.
	Size int
	// MissingClasses permits a domain without any image of a class that others have.
	MissingClasses bool
}

// Open opens the data set below dir: in dir's folder of DomainBed's name for it, or
// in dir itself.
func (b Benchmark) Open(dir string, o OpenOptions) (*Dataset, error) {
	if b.Folder != "" {
		if sub := filepath.Join(dir, b.Folder); isFolder(sub) {
			dir = sub
		}
	}
	if b.mnist != nil {
		m, err := readDigits(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.Name, err)
		}
		return b.mnist(m, o.Seed), nil
	}
	d, err := openFolders(dir, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name, err)
	}
	d.Name = b.Name
	if b.Domains != nil && len(d.Domains) != len(b.Domains) {
		return nil, fmt.Errorf("%s: %s holds %d domains (%s); there should be %d, as %s", b.Name, dir, len(d.Domains), strings.Join(d.DomainNames(), ", "), len(b.Domains), strings.Join(b.Domains, ", "))
	}
	return d, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// DomainNames are the names of the domains, in order.
func (d *Dataset) DomainNames() []string {
	var names []string
	for _, m := range d.Domains {
		names = append(names, m.Name)
	}
	return names
}

// Domain returns the number of the domain of that name.
func (d *Dataset) Domain(name string) (int, error) {
	if i := slices.Index(d.DomainNames(), name); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("%s has no domain %q: want one of %s", d.Name, name, strings.Join(d.DomainNames(), ", "))
}

// openFolders reads a folder of domains, each a folder of classes as torchvision's
// ImageFolder has them. Labels are numbers of the classes of all domains: a class that
// one domain lacks must not move the labels of the others.
func openFolders(dir string, o OpenOptions) (*Dataset, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	size := o.Size
	if size == 0 {
		size = 224
	}
	d := &Dataset{Name: filepath.Base(dir), Channels: 3, Size: size}
	var lists []imageset.List
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") || !isFolder(path) {
			continue
		}
		l, err := imageset.ReadFolder(path)
		if err != nil {
			return nil, err
		}
		if l.Classes == nil {
			return nil, fmt.Errorf("%s holds images and no folders of classes; a folder of domains holds DOMAIN/CLASS/image", path)
		}
		d.Domains = append(d.Domains, Domain{Name: e.Name()})
		lists = append(lists, l)
		for _, c := range l.Classes {
			if !slices.Contains(d.ClassNames, c) {
				d.ClassNames = append(d.ClassNames, c)
			}
		}
	}
	if len(lists) < 2 {
		return nil, fmt.Errorf("%s holds %d domains; want at least two folders, DOMAIN/CLASS/image", dir, len(lists))
	}
	slices.Sort(d.ClassNames)
	augment, err := train.NamedAugment("domainbed")
	if err != nil {
		return nil, err
	}
	preset, err := imageset.Preset("imagenet")
	if err != nil {
		return nil, err
	}
	for i, l := range lists {
		if missing := without(d.ClassNames, l.Classes); len(missing) > 0 && !o.MissingClasses {
			return nil, fmt.Errorf("domain %s has no class %s, which others have; fill it, or permit missing classes", d.Domains[i].Name, strings.Join(missing, ", "))
		}
		label := make([]int, len(l.Classes))
		for k, c := range l.Classes {
			label[k], _ = slices.BinarySearch(d.ClassNames, c)
		}
		for k := range l.Items {
			l.Items[k].Label = label[l.Items[k].Label]
		}
		d.Domains[i].Samples = &train.Files{List: l, Size: size, Mean: preset.Mean, Std: preset.Std, Augment: augment}
	}
	return d, nil
}

func without(all, some []string) (missing []string) {
	for _, a := range all {
		if !slices.Contains(some, a) {
			missing = append(missing, a)
		}
	}
	return missing
}
