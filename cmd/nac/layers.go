package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/arch"
	"nac/onnx"
	"nac/weights"
)

func newLayersCommand() *cobra.Command {
	var name, checkpoint string
	cmd := &cobra.Command{
		Use:   "layers --arch NAME --checkpoint FILE | layers MODEL.onnx",
		Short: "List the layers of a network whose neurons can be read",
		Long: `Lists the layers of a network whose neurons can be read, the deepest first: the
names that --layers of "nac bench" takes. "Neurons" are the layer's channels; a
neuron's activation is the sum over the layer's height and width.

An ONNX model needs no architecture: every operation in it is a layer.`,
		Example: `  nac layers --arch resnet20 --checkpoint resnet20.th
  nac layers model.onnx`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if checkpoint != "" {
					return usagef("a model besides --checkpoint: want one of them")
				}
				if checkpoint = args[0]; !isONNX(checkpoint) {
					return usagef("%s is no .onnx model; a checkpoint is given with --arch and --checkpoint", checkpoint)
				}
			}
			m, err := openModel(name, checkpoint)
			if err != nil {
				return err
			}
			t := newTable("layer", "neurons", "height x width")
			for _, l := range m.Layers {
				t.AppendRow(table.Row{l.Name, l.Channels, fmt.Sprintf("%dx%d", l.Height, l.Width)})
			}
			in := m.InputSize
			return printLines(cmd.OutOrStdout(), t.Render(),
				"to begin with: --layers "+strings.Join(m.Suggested(), ","),
				fmt.Sprintf("%s: %d classes, feature of %d, images of %dx%dx%d", m.Name, m.Classes, m.Features, in[0], in[1], in[2]))
		},
	}
	addModelFlags(cmd, &name, &checkpoint)
	return cmd
}

func addModelFlags(cmd *cobra.Command, name, checkpoint *string) {
	cmd.Flags().StringVar(name, "arch", "", "architecture, a `name` of \"nac arch\"")
	cmd.Flags().StringVar(checkpoint, "checkpoint", "", "`file` with the weights: PyTorch (.pth, .th, .ckpt), safetensors, or a whole .onnx model")
	complete(cmd, "arch", arch.Names)
	_ = cmd.MarkFlagFilename("checkpoint")
}

// complete makes a shell complete a flag's value.
func complete(cmd *cobra.Command, flag string, values func() []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	})
}

// isONNX tells a whole model from a checkpoint by the file's name.
func isONNX(file string) bool { return strings.EqualFold(filepath.Ext(file), ".onnx") }

// openModel loads a checkpoint into the named architecture, or an ONNX model.
func openModel(name, checkpoint string) (*arch.Model, error) {
	if err := checkArch(name, checkpoint); err != nil {
		return nil, err
	}
	if isONNX(checkpoint) {
		return onnx.Load(checkpoint)
	}
	if checkpoint == "" {
		return nil, usagef("--checkpoint is missing: the file with the network's weights")
	}
	sd, err := weights.Open(checkpoint)
	if err != nil {
		return nil, err
	}
	return arch.Load(name, sd)
}

// checkArch finds a misspelt name before a large checkpoint is read.
func checkArch(name, checkpoint string) error {
	if isONNX(checkpoint) {
		if name != "" {
			return usagef("--arch %s: an ONNX model brings its own architecture", name)
		}
		return nil
	}
	if name == "" {
		return usagef("--arch is missing; one of %s", list(arch.Names()))
	}
	return oneOf("--arch", name, arch.Names())
}
