package main

import (
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/arch"
	"nac/weights"
)

func newLayersCommand() *cobra.Command {
	var name, checkpoint string
	cmd := &cobra.Command{
		Use:   "layers --arch NAME --checkpoint FILE",
		Short: "List the layers of a network whose neurons can be read",
		Long: `Lists the layers of a network whose neurons can be read, the deepest first: the
names that --layers of "nac bench" takes. "Neurons" are the layer's channels; a
neuron's activation is the sum over the layer's height and width.`,
		Example: `  nac layers --arch resnet20 --checkpoint resnet20.th`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
				fmt.Sprintf("%s: %d classes, feature of %d, images of %dx%dx%d", m.Name, m.Classes, m.Features, in[0], in[1], in[2]))
		},
	}
	addModelFlags(cmd, &name, &checkpoint)
	return cmd
}

func addModelFlags(cmd *cobra.Command, name, checkpoint *string) {
	cmd.Flags().StringVar(name, "arch", "", "architecture, a `name` of \"nac arch\"")
	cmd.Flags().StringVar(checkpoint, "checkpoint", "", "`file` with the weights: PyTorch (.pth, .th, .ckpt) or safetensors")
	complete(cmd, "arch", arch.Names)
	_ = cmd.MarkFlagFilename("checkpoint")
}

// complete makes a shell complete a flag's value.
func complete(cmd *cobra.Command, flag string, values func() []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	})
}

// openModel loads a checkpoint into the named architecture.
func openModel(name, checkpoint string) (*arch.Model, error) {
	if err := checkArch(name); err != nil {
		return nil, err
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
func checkArch(name string) error {
	if name == "" {
		return usagef("--arch is missing; one of %s", list(arch.Names()))
	}
	return oneOf("--arch", name, arch.Names())
}
