package arch

import (
	"fmt"
	"math"

	"nac/nn"
)

// visionTransformer is the network of Dosovitskiy et al. (2021), with
// torchvision's names.
//
//	stage       B/16                           output at 224
//	conv_proj   16x16, stride 16               768x14x14
//	            class token, position embedding  768, 197 tokens
//	layer_0     block                          768, 197 tokens
//	...
//	layer_11    block                          768, 197 tokens
//	layer_norm  layer norm, class token        768: the penultimate feature
//	heads.head  K
//
// A block is [layer norm, attention] and [layer norm, linear of four times the
// width, GELU, linear], each with a shortcut around it. Layer layer_k is, as in
// the reference, what the second layer norm of block k yields, of all tokens;
// layer_norm is the class token alone. The image is as large as the checkpoint
// has positions for.
func visionTransformer(patch, blocks, heads, width int) func(*builder) {
	return func(b *builder) {
		g := b.graph
		side := 224 / patch
		if t, ok := b.sd.Lookup("encoder.pos_embedding"); ok && len(t.Shape) == 3 {
			if s := int(math.Sqrt(float64(t.Shape[1]))); s > 0 && s*s+1 == t.Shape[1] {
				side = s
			}
		}
		x := b.patches("conv_proj", b.image(3, side*patch, side*patch), width, patch)
		b.layer("conv_proj", x)
		class, tokens := b.tensor("class_token", 1, 1, width), 1+side*side
		x = g.Tokens(x, class, b.tensor("encoder.pos_embedding", 1, tokens, width))
		// Published checkpoints are older than the names that torchvision saves today.
		mlp := [2]string{"mlp.0", "mlp.3"}
		if _, old := b.sd.Lookup("encoder.layers.encoder_layer_0.mlp.linear_1.weight"); old {
			mlp = [2]string{"mlp.linear_1", "mlp.linear_2"}
		}
		for i := range blocks {
			name := fmt.Sprintf("encoder.layers.encoder_layer_%d.", i)
			attention := name + "self_attention."
			y := b.layerNorm(name+"ln_1", x, 1e-6)
			y = b.linearOf(y, 3*width, b.tensor(attention+"in_proj_weight", 3*width, width), b.tensor(attention+"in_proj_bias", 3*width))
			x = g.Add(b.linear(attention+"out_proj", g.Attention(y, heads), width), x)
			y = b.layerNorm(name+"ln_2", x, 1e-6)
			b.layer(fmt.Sprintf("layer_%d", i), y)
			if i == blocks-1 {
				// Nobody reads the other tokens' last half.
				x, y = g.Token(x, 0), g.Token(y, 0)
			}
			y = g.Apply(nn.GELU, b.linear(name+mlp[0], y, 4*width))
			x = g.Add(b.linear(name+mlp[1], y, width), x)
		}
		x = b.layerNorm("encoder.ln", x, 1e-6)
		b.layer("layer_norm", x)
		b.classifier("heads.head", x)
	}
}
