// Package onnx imports classifiers in the ONNX format, as PyTorch and other
// frameworks export them, into the network engine: any operation's output is a
// layer whose states and gradients can be read.
//
// Images are imported one at a time: a model whose batch size is free is read as
// of one image, and an operation that would mix images is refused. Shapes other
// than the batch size must be known.
//
// An activation is kept as channels by height by width whatever the model makes
// of it; Reshape and Transpose change how the model sees it and compute nothing,
// see view.
package onnx
