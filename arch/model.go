// Package arch holds the classifiers that nac knows by name: it turns a
// checkpoint's tensors into a network, and a network into an extractor of
// logits, penultimate features and pooled neuron states.
//
// One file holds one family; its layer names are those of the NAC reference
// (Liu et al., ICLR 2024), so that published settings apply unchanged.
package arch

import (
	"fmt"
	"slices"
	"strings"

	"nac/nn"
	"nac/weights"
)

// Layer is a place in a network whose activations can be read.
type Layer struct {
	Name string
	// Channels is the number of neurons: a pooled state has one value a channel.
	Channels int
	// Height and Width are the size of the unpooled activation, 1x1 for a
	// pooled feature.
	Height, Width int
}

// Head is the last linear layer: logits = Weight*feature + Bias.
type Head struct {
	Weight []float32 // K×F, row-major
	Bias   []float32 // K
}

// Request says what an Extractor is to compute.
type Request struct {
	// Layers names the layers whose pooled states are wanted, in the order wanted.
	Layers []string
	// Gradients asks for the KL gradients too. Without it only the forward pass
	// runs and LayerStates.G is nil.
	Gradients bool
	// Maps are functions of whole activations.
	Maps []Map
	// From, if not empty, is a layer whose activation is given to Run instead of the
	// image, as pixels of Channels values. What is asked for must not need more of the
	// image.
	From string
	// Losses asks for the gradient of each with respect to what is given to Run; they
	// share the forward pass.
	Losses []Loss
	// Bare leaves out logits and feature, and what of the network only they need.
	Bare bool
	// Kernel names the instruction set to compute with: "avx512", "avx2" or
	// "portable", all in float32, or "bf16", which multiplies in bfloat16 and needs
	// AVX512-BF16. Empty means the best in float32 that the machine runs.
	Kernel string
}

// Map asks for what Reduce makes of a layer's whole activation, Size values an image.
// Reduce is given pixels of Channels values, may write to them, and is called from
// several goroutines at once.
type Map struct {
	Layer  string
	Size   int
	Reduce func(activation, dst []float32)
}

// Loss is a function of an image's activation of a layer, averaged over space;
// an empty Layer means the logits. Gradient is called from several goroutines at once.
type Loss struct {
	Layer    string
	Gradient func(values, gradient []float32)
}

// LayerStates are the pooled states of one layer for a batch.
type LayerStates struct {
	Name     string
	Channels int
	Z        []float32 // N×Channels: activations, pooled as the architecture's rule says
	G        []float32 // N×Channels: gradient of KL(uniform || softmax) with respect to them, pooled alike
}

// Batch is what one run of an Extractor yields.
type Batch struct {
	N       int
	Logits  []float32 // N×K
	Feature []float32 // N×F, the penultimate feature
	States  []LayerStates
	Maps    [][]float32 // by map: N×Size
	// InputGradients are by loss, of the shape of what was given to Run.
	InputGradients [][]float32
}

// Model is a network with its weights. It is read-only and may be shared.
type Model struct {
	Name      string
	Classes   int    // K
	Features  int    // F, the length of the penultimate feature
	InputSize [3]int // channels, height and width of an image
	// Layers are the places that can be read, the deepest first.
	Layers []Layer

	graph           *nn.Graph
	nodes           []*nn.Node // of Layers
	stages          []place
	logits, feature *nn.Node
	head            Head
}

// family is an entry of the table of architectures.
type family struct {
	name  string
	about string
	build func(b *builder)
}

// families is the table: one line adds an architecture.
var families = []family{
	{"resnet20", "He et al. 2016 for CIFAR, 20 layers, option A shortcuts", cifarResNet(3)},
	{"resnet32", "the same, 32 layers", cifarResNet(5)},
	{"resnet44", "the same, 44 layers", cifarResNet(7)},
	{"resnet56", "the same, 56 layers", cifarResNet(9)},
	{"resnet18_32x32", "ResNet-18 with a 3x3 stem, as OpenOOD trains it on CIFAR", smallResNet18(32)},
	{"resnet18_64x64", "the same for 64x64 images, as OpenOOD trains it on Tiny ImageNet", smallResNet18(64)},
	{"resnet18_224x224", "ResNet-18 of torchvision, as OpenOOD trains it on ImageNet-200", imageNetResNet(basicBlock, 2, 2, 2, 2)},
	{"resnet18", "the same, with torchvision's own name", imageNetResNet(basicBlock, 2, 2, 2, 2)},
	{"resnet34", "ResNet-34 of torchvision", imageNetResNet(basicBlock, 3, 4, 6, 3)},
	{"resnet50", "ResNet-50 of torchvision", imageNetResNet(bottleneck, 3, 4, 6, 3)},
	{"resnet101", "ResNet-101 of torchvision", imageNetResNet(bottleneck, 3, 4, 23, 3)},
	{"wrn_28_10", "Wide ResNet-28-10 for 32x32 images, as OpenOOD trains it on CIFAR", wideResNet(28, 10)},
	{"densenet_bc_100_12", "DenseNet-BC for 32x32 images, depth 100, growth 12, as OpenOOD's", cifarDenseNet(100, 12)},
	{"densenet121", "DenseNet-121 of torchvision", imageNetDenseNet(32, 64, 6, 12, 24, 16)},
	{"densenet169", "DenseNet-169 of torchvision", imageNetDenseNet(32, 64, 6, 12, 32, 32)},
	{"densenet201", "DenseNet-201 of torchvision", imageNetDenseNet(32, 64, 6, 12, 48, 32)},
	{"densenet161", "DenseNet-161 of torchvision", imageNetDenseNet(48, 96, 6, 12, 36, 24)},
	{"lenet", "LeNet-5 with ReLUs for 28x28 images, as OpenOOD trains it on MNIST", leNet},
	{"mnist_cnn", "DomainBed's network for MNIST: four convolutions with group norms, 28x28 images", mnistCNN},
	{"mobilenet_v2", "MobileNetV2 of torchvision", mobileNetV2(false)},
	{"mobilenet_v2_same", "the same with TensorFlow's SAME padding, for checkpoints trained there", mobileNetV2(true)},
	{"convnext_tiny", "ConvNeXt-T of torchvision", convNeXt([4]int{96, 192, 384, 768}, [4]int{3, 3, 9, 3})},
	{"convnext_small", "ConvNeXt-S of torchvision", convNeXt([4]int{96, 192, 384, 768}, [4]int{3, 3, 27, 3})},
	{"convnext_base", "ConvNeXt-B of torchvision", convNeXt([4]int{128, 256, 512, 1024}, [4]int{3, 3, 27, 3})},
	{"convnext_large", "ConvNeXt-L of torchvision", convNeXt([4]int{192, 384, 768, 1536}, [4]int{3, 3, 27, 3})},
	{"vit_b_16", "ViT-B/16 of torchvision", visionTransformer(16, 12, 12, 768)},
	{"vit_b_32", "ViT-B/32 of torchvision", visionTransformer(32, 12, 12, 768)},
	{"vit_l_16", "ViT-L/16 of torchvision", visionTransformer(16, 24, 16, 1024)},
	{"vit_l_32", "ViT-L/32 of torchvision", visionTransformer(32, 24, 16, 1024)},
	{"swin_t", "Swin-T of torchvision", swinTransformer(96, [4]int{2, 2, 6, 2}, [4]int{3, 6, 12, 24})},
	{"swin_s", "Swin-S of torchvision", swinTransformer(96, [4]int{2, 2, 18, 2}, [4]int{3, 6, 12, 24})},
	{"swin_b", "Swin-B of torchvision", swinTransformer(128, [4]int{2, 2, 18, 2}, [4]int{4, 8, 16, 32})},
}

// Names lists the architectures that Load knows.
func Names() []string {
	names := make([]string, len(families))
	for i, f := range families {
		names[i] = f.name
	}
	return names
}

// About describes an architecture in a few words; it is empty for an unknown one.
func About(name string) string {
	for _, f := range families {
		if f.name == name {
			return f.about
		}
	}
	return ""
}

// Load builds the named architecture from a checkpoint. The number of classes is
// that of the checkpoint's last linear layer. A tensor that is missing,
// unexpected, wrongly shaped or not finite is an error that lists all such
// tensors.
func Load(name string, sd *weights.StateDict) (*Model, error) {
	b, err := build(name, newBuilder(sd))
	if err != nil {
		return nil, err
	}
	m, err := b.model(name)
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", name, err)
	}
	return m, nil
}

// build has the named family build.
func build(name string, b *builder) (*builder, error) {
	for _, f := range families {
		if f.name == name {
			f.build(b)
			return b, nil
		}
	}
	return nil, fmt.Errorf("arch: no architecture %q; known are %s", name, strings.Join(Names(), ", "))
}

// Layer returns the named layer. The error for an unknown one lists those there are.
func (m *Model) Layer(name string) (Layer, error) {
	i, err := m.layer(name)
	if err != nil {
		return Layer{}, err
	}
	return m.Layers[i], nil
}

func (m *Model) layer(name string) (int, error) {
	for i, l := range m.Layers {
		if l.Name == name {
			return i, nil
		}
	}
	names := make([]string, len(m.Layers))
	for i, l := range m.Layers {
		names[i] = l.Name
	}
	return 0, fmt.Errorf("arch: %s has no layer %q; its layers are %s", m.Name, name, strings.Join(names, ", "))
}

// place is a named node.
type place struct {
	Layer
	node *nn.Node
}

func placeOf(name string, n *nn.Node) place {
	s := n.Shape()
	return place{Layer{Name: name, Channels: s.C, Height: s.H, Width: s.W}, n}
}

func stageName(i int) string { return fmt.Sprintf("stage %d", i) }

// Stages returns the activations behind the stem, "stage 0", and behind each stage,
// "stage 1" and so on: OpenOOD's list of features, before the last is pooled. For a
// network of which they are not known they are the layers that are larger than a pixel.
func (m *Model) Stages() []Layer { return layersOf(m.stagePlaces()) }

func (m *Model) stagePlaces() (places []place) {
	if m.stages != nil {
		return m.stages
	}
	for i, l := range slices.Backward(m.Layers) {
		if l.Height*l.Width > 1 {
			places = append(places, placeOf(stageName(len(places)), m.nodes[i]))
		}
	}
	return places
}

// Convolutions returns the outputs of all convolutions of images, before any
// normalisation, from the image on: "convolution 0" and so on.
func (m *Model) Convolutions() []Layer { return layersOf(m.convolutionPlaces()) }

func (m *Model) convolutionPlaces() (places []place) {
	for _, n := range m.graph.Convolutions() {
		places = append(places, placeOf(fmt.Sprintf("convolution %d", len(places)), n))
	}
	return places
}

func layersOf(places []place) (layers []Layer) {
	for _, p := range places {
		layers = append(layers, p.Layer)
	}
	return layers
}

// place finds a layer, stage or convolution.
func (m *Model) place(name string) (place, error) {
	i, err := m.layer(name)
	if err == nil {
		return place{m.Layers[i], m.nodes[i]}, nil
	}
	for _, p := range append(slices.Clone(m.stagePlaces()), m.convolutionPlaces()...) {
		if p.Name == name {
			return p, nil
		}
	}
	return place{}, err
}

// Head returns the last linear layer. Its slices are the model's own: do not
// write to them.
func (m *Model) Head() Head { return m.head }
