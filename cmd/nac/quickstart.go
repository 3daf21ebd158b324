package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nac/arch"
	"nac/openood"
	"nac/quickstart"
)

func newQuickstartCommand() *cobra.Command {
	var flags jobFlags
	var keep string
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "Run a small benchmark that is built in: no data needed",
		Long: `Runs the job of "nac bench" on what is built into the program: a ResNet-20 that
knows eight kinds of clothes of Fashion-MNIST. Near-OOD are the two kinds it has
never seen, bags and ankle boots; far-OOD are the digits of MNIST.

--keep writes network, lists and images to a folder, laid out as OpenOOD's data.`,
		Example: `  nac quickstart
  nac quickstart --detectors nac --layers avgpool --out results
  nac quickstart --keep fashion`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			if keep != "" {
				if err := keepFiles(keep); err != nil {
					return err
				}
			}
			j, err := quickstartJob(&flags)
			if err != nil {
				return err
			}
			if err := j.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			if keep == "" {
				return nil
			}
			return printLines(cmd.OutOrStdout(), "The same from files: nac bench "+fashion.Name+" --arch "+quickstart.Arch+
				" --checkpoint "+filepath.Join(keep, filepath.FromSlash(quickstart.Checkpoint))+" --data "+keep)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&keep, "keep", "", "also write the built-in files to this new `folder`")
	_ = cmd.MarkFlagDirname("keep")
	return cmd
}

// quickstartJob is the job of "nac bench" on the embedded benchmark.
func quickstartJob(flags *jobFlags) (job, error) {
	files, err := quickstart.FS()
	if err != nil {
		return job{}, err
	}
	t, err := transformOf(fashion)
	if err != nil {
		return job{}, err
	}
	return job{
		jobFlags: flags, benchmark: fashion, layout: openood.Layout{FS: files},
		transform: t, classes: quickstart.ClassNames(), runs: []trainingRun{{checkpoint: quickstart.Checkpoint}},
		model: func(string) (*arch.Model, error) {
			sd, err := embeddedCheckpoint(files)
			if err != nil {
				return nil, err
			}
			return arch.Load(quickstart.Arch, sd)
		},
	}, nil
}

// keepFiles writes the embedded files to a folder that is not there yet, or is
// empty; all of them or none.
func keepFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if len(entries) > 0 {
		return usagef("--keep: %s is not empty; name a new folder", dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return usagef("--keep: %w", err)
	}
	dir = filepath.Clean(dir)
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".nac-*.tmp")
	if err != nil {
		return fmt.Errorf("--keep: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("--keep: %w", err)
	}
	if err := quickstart.Extract(temp); err != nil {
		return err
	}
	if entries != nil {
		// An empty folder cannot be renamed over everywhere.
		if err := os.Remove(dir); err != nil {
			return fmt.Errorf("--keep: %w", err)
		}
	}
	if err := os.Rename(temp, dir); err != nil {
		return fmt.Errorf("--keep: %w", err)
	}
	return nil
}
