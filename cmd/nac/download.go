package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"nac/download"
)

const downloadSettingsExample = `  mirrors:                        # a base address for each kind: lists, datasets,
    datasets: https://mirror.example/openood/   # checkpoints, weights
  files:                          # one item
    tin: {url: "https://other.example/tin.zip", bytes: 246000000, sha256: 0123456789abcdef}`

func newDownloadCommand() *cobra.Command {
	var (
		dest, settings string
		listOnly, dry  bool
	)
	cmd := &cobra.Command{
		Use:   "download NAME...",
		Short: "Fetch data sets, lists and checkpoints by name",
		Long: `Fetches the data sets, lists and checkpoints of OpenOOD v1.5 and weights of
torchvision, and puts them below --dest where "nac bench --data" looks for them.
A name is one of --list: an item such as cifar10, or a group such as cifar-10,
which is all that the benchmark reads.

A transfer that breaks off goes on where it ended, now or when nac download is called
again; until then its bytes are in a file .part. What is complete is not fetched
again. Sizes and checksums are checked where they are known, and each file of an
archive by its CRC-32. Archives are unpacked and removed.

Google Drive, where OpenOOD's files are, at times refuses popular files for a
day. A mirror is set in a YAML or JSON file, --settings:

` + downloadSettingsExample + `

A mirror holds files named as --dry-run shows. Training images of ImageNet come
from image-net.org alone.`,
		Example: `  nac download --list
  nac download cifar-10 cifar10_res18_v1.5 --dest data
  nac download imagenet-1k --dry-run
  nac download resnet50 --settings mirrors.yaml`,
		ValidArgs: downloadNames(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !listOnly {
				return usagef("name what to fetch; --list lists all there is")
			}
			if listOnly && dry {
				return usagef("--list and --dry-run exclude each other")
			}
			if dest == "" {
				return usagef("--dest: an empty name")
			}
			items, err := download.Select(args...)
			if err != nil {
				return usageError{err}
			}
			o := download.Options{Progress: &transfers{w: cmd.ErrOrStderr(), bars: isTerminal(cmd.ErrOrStderr())}}
			if settings != "" {
				if o.Settings, err = download.ReadSettings(settings); err != nil {
					return usageError{err}
				}
			}
			c, err := download.New(o)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			switch {
			case listOnly:
				return listDownloads(w, items)
			case dry:
				return planDownloads(w, c, dest, items)
			}
			return fetchAll(cmd.Context(), w, c, dest, items)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dest, "dest", "data", "`folder` that all goes below, what --data of \"nac bench\" is given")
	f.BoolVar(&listOnly, "list", false, "list what can be fetched, or what the names stand for, and fetch nothing")
	f.BoolVar(&dry, "dry-run", false, "say what would be fetched, from where and to where, and fetch nothing")
	f.StringVar(&settings, "settings", "", "YAML or JSON `file` with mirrors")
	_ = cmd.MarkFlagDirname("dest")
	_ = cmd.MarkFlagFilename("settings", "yaml", "yml", "json")
	return cmd
}

func downloadNames() []string {
	var names []string
	for _, g := range download.Groups() {
		names = append(names, g.Name)
	}
	for _, it := range download.Items() {
		names = append(names, it.Name)
	}
	return names
}

// listDownloads prints the items, or all items and groups if none are given.
func listDownloads(w io.Writer, items []download.Item) error {
	var lines []string
	if len(items) == 0 {
		items = download.Items()
		t := newTable("group", "what", "items")
		for _, g := range download.Groups() {
			t.AppendRow(table.Row{g.Name, g.About, len(g.Items)})
		}
		lines = append(lines, t.Render(), "")
	}
	t := newTable("item", "kind", "what", "goes to")
	for _, it := range items {
		t.AppendRow(table.Row{it.Name, it.Kind, it.About, it.Path()})
	}
	return printLines(w, append(lines, t.Render())...)
}

func planDownloads(w io.Writer, c *download.Client, dest string, items []download.Item) error {
	steps, err := c.Plan(dest, items)
	if err != nil {
		return err
	}
	t := newTable("item", "what is to be done", "size", "from", "file", "to")
	rightAligned(t, 3)
	todo := 0
	for _, s := range steps {
		what, size := "fetch", "?"
		switch {
		case s.There:
			what = "nothing, it is there"
		case s.Have > 0:
			what = "go on at " + megabytes(s.Have)
		}
		switch {
		case s.Total >= 0:
			size = megabytes(s.Total)
		case s.Item.MiB > 0:
			size = "about " + megabytes(int64(s.Item.MiB*(1<<20)))
		}
		if !s.There {
			todo++
		}
		t.AppendRow(table.Row{s.Item.Name, what, size, s.From, s.Item.File, s.Path})
	}
	return printLines(w, t.Render(), fmt.Sprintf("%d of %d to be fetched; nothing has been.", todo, len(steps)))
}

// fetchAll fetches one item after the other. One that fails does not keep the
// others from being fetched.
func fetchAll(ctx context.Context, w io.Writer, c *download.Client, dest string, items []download.Item) error {
	var errs []error
	for _, it := range items {
		begin := time.Now()
		r, err := c.Get(ctx, dest, it)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
			if err := printLines(w, fmt.Sprintf("%-20s failed", it.Name)); err != nil {
				return err
			}
			continue
		}
		line := fmt.Sprintf("%-20s %s, %s in %s", it.Name, r.Path, megabytes(r.Bytes), seconds(time.Since(begin).Seconds()))
		switch {
		case r.There:
			line = fmt.Sprintf("%-20s %s is there already", it.Name, r.Path)
		case len(r.Kept) > 0:
			line += "; left as they were: " + list(r.Kept)
		}
		if err := printLines(w, line); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// transfers shows a bar on a terminal; elsewhere it tells of failed attempts alone.
type transfers struct {
	w    io.Writer
	bars bool
	bar  *progressbar.ProgressBar
}

func (t *transfers) Begin(stage, item string, done, total int64) {
	if !t.bars {
		return
	}
	left := total
	if total >= 0 {
		left = max(total-done, 1)
	}
	t.bar = progressbar.NewOptions64(left,
		progressbar.OptionSetWriter(t.w), progressbar.OptionSetDescription(fmt.Sprintf("%-6s %-20s", stage, item)),
		progressbar.OptionShowBytes(true), progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
}

func (t *transfers) Advance(bytes int64) {
	if t.bar != nil {
		_ = t.bar.Add64(bytes)
	}
}

func (t *transfers) End() {
	if t.bar != nil {
		_ = t.bar.Clear()
		t.bar = nil
	}
}

func (t *transfers) Retry(item string, err error, wait time.Duration) {
	if wait > 0 {
		fmt.Fprintf(t.w, "%s: %s; trying again in %s\n", item, oneLine(err.Error()), seconds(wait.Seconds()))
	} else {
		fmt.Fprintf(t.w, "%s: %s; fetching it again\n", item, oneLine(err.Error()))
	}
}
