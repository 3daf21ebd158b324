package arch

import (
	"fmt"

	"nac/nn"
)

// swinTransformer is the network of Liu et al. (2021), with torchvision's names.
//
//	stage                tiny                      output at 224
//	conv_proj            4x4, stride 4, layer norm  96x56x56
//	features.1           block x 2                 96x56x56
//	patch_2              2x2 pixels into one       192x28x28
//	features.3           block x 2                 192x28x28
//	patch_4              2x2 pixels into one       384x14x14
//	features.5           block x 6                 384x14x14
//	patch_6              2x2 pixels into one       768x7x7
//	features.7           block x 2                 768x7x7
//	layer_norm           layer norm                768x7x7
//	avgpool                                        768
//	head                 K
//
// A block is [layer norm, attention in windows of 7x7, every other time shifted
// by 3] and [layer norm, linear of four times the width, GELU, linear], each with
// a shortcut around it. Layer layer_k is, as in the reference, what the first
// linear layer of the last block of features.k yields, before its GELU.
func swinTransformer(width int, blocks, heads [4]int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		x := b.layerNorm("features.0.2", b.patches("features.0.0", b.image(3, 224, 224), width, 4), 1e-5)
		b.layer("conv_proj", x)
		for stage, n := range blocks {
			if stage > 0 {
				name := fmt.Sprintf("features.%d", 2*stage)
				x = b.layerNorm(name+".norm", g.MergePatches(x), 1e-5)
				c := x.Shape().C
				x = b.linearOf(x, c/2, b.tensor(name+".reduction.weight", c/2, c), nil)
				b.layer(fmt.Sprintf("patch_%d", 2*stage), x)
			}
			for i := range n {
				var hidden *nn.Node
				x, hidden = swinBlock(b, fmt.Sprintf("features.%d.%d", 2*stage+1, i), x, heads[stage], i%2 == 1)
				if i == n-1 {
					b.layer(fmt.Sprintf("layer_%d", 2*stage+1), hidden)
				}
			}
		}
		x = b.layerNorm("norm", x, 1e-5)
		b.layer("layer_norm", x)
		x = g.GlobalAvgPool(x)
		b.layer("avgpool", x)
		b.classifier("head", x)
	}
}

// swinBlock also returns what its first linear layer yields.
func swinBlock(b *builder, name string, x *nn.Node, heads int, shifted bool) (out, hidden *nn.Node) {
	const window = 7
	g, c := b.graph, x.Shape().C
	shift := 0
	if shifted && x.Shape().H > window {
		shift = window / 2
	}
	y := b.linear(name+".attn.qkv", b.layerNorm(name+".norm1", x, 1e-5), 3*c)
	y = g.WindowAttention(y, heads, window, shift, b.relativePositions(name+".attn", heads, window))
	x = g.Add(b.linear(name+".attn.proj", y, c), x)
	hidden = b.linear(name+".mlp.0", b.layerNorm(name+".norm2", x, 1e-5), 4*c)
	return g.Add(b.linear(name+".mlp.3", g.Apply(nn.GELU, hidden), c), x), hidden
}

// relativePositions is the bias of a window's attention, [heads][query][key]: one
// of a table for each distance of two pixels, in rows and in columns.
func (b *builder) relativePositions(name string, heads, window int) []float32 {
	distances, tokens := 2*window-1, window*window
	table := b.tensor(name+".relative_position_bias_table", distances*distances, heads)
	index, bias := make([]float32, tokens*tokens), make([]float32, heads*tokens*tokens)
	for i := range tokens {
		for j := range tokens {
			at := (i/window-j/window+window-1)*distances + i%window - j%window + window - 1
			index[i*tokens+j] = float32(at)
			for h := range heads {
				bias[(h*tokens+i)*tokens+j] = table[at*heads+h]
			}
		}
	}
	b.constant(name+".relative_position_index", index, tokens*tokens)
	return bias
}
