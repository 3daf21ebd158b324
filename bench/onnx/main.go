// Command onnx writes what nac computes of an ONNX model, for check.py: logits,
// and the pooled states and gradients of every layer.
//
//	go run ./bench/onnx MODEL.onnx INPUT.safetensors OUTPUT.safetensors
package main

import (
	"fmt"
	"os"

	"nac/arch"
	"nac/internal/safetensors"
	"nac/onnx"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: onnx MODEL.onnx INPUT.safetensors OUTPUT.safetensors")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(model, input, output string) error {
	m, err := onnx.Load(model)
	if err != nil {
		return err
	}
	file, err := safetensors.Read(input)
	if err != nil {
		return err
	}
	images, shape, err := file.Float32s("input")
	if err != nil {
		return err
	}
	n := shape[0]
	r := arch.Request{Gradients: true}
	for _, l := range m.Layers {
		r.Layers = append(r.Layers, l.Name)
	}
	e, err := m.NewExtractor(r, n, 0)
	if err != nil {
		return err
	}
	got, err := e.Run(images, n)
	if err != nil {
		return err
	}
	tensors := []safetensors.Tensor{safetensors.Float32("logits", []int{n, m.Classes}, got.Logits)}
	for _, s := range got.States {
		tensors = append(tensors,
			safetensors.Float32(s.Name+"|z", []int{n, s.Channels}, s.Z),
			safetensors.Float32(s.Name+"|g", []int{n, s.Channels}, s.G))
	}
	return safetensors.Write(output, tensors, nil)
}
