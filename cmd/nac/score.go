package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"nac"
	"nac/imageset"
	"nac/remote"
)

func newScoreCommand() *cobra.Command {
	var f scoreFlags
	cmd := &cobra.Command{
		Use:   "score DETECTOR IMAGES...",
		Short: "Tell which images are out-of-distribution",
		Long: `Scores images with a detector that "nac fit" has written and says of each: ID or OOD,
its score (higher = more in-distribution), its p-value (of images like those that the
detector was calibrated on, at most this share looks as strange), and the classifier's
prediction with its probability.

IMAGES are files, folders with all that is below, tar archives, and lists, lines of
"path" or "path label"; - is a list, or an image, from the standard input. Any number
of images is scored in constant memory. An image that cannot be read gets a row that
says why, and the exit code is ` + fmt.Sprint(exitPartial) + `.

With --out a run that was interrupted goes on where it stopped when it is called again;
FILE appears when all is done.

With --explain each image's coverage is written to a folder: a text that says which
layers and neurons ID images do not cover, and which calibration images are nearest in
their neurons' states; the same as JSON; and a picture, the input beside maps of where
each layer is active and uncovered. It takes some times as long as scoring: name the few
images that you wonder about.

With --shard i/n the i-th of n equal parts of the images is scored, i from 0, and --out is a
file for "nac merge", which writes what one run would have. Images that cannot be
scored are no failure of a shard: merge reports them.

The classifier is looked for where it was when the detector was fitted, then beside
the detector; --model names another place.`,
		Example: `  nac score detector.nac photo.jpg
  nac score detector.nac uploads/ --format csv --out scores.csv
  nac score detector.nac photo.jpg --explain why
  find / -name '*.jpg' | nac score detector.nac - --format jsonl --fpr 0.01`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("want a detector and images")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args[0], args[1:], cmd)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "`file` of the classifier, if it has moved")
	fl.StringVar(&f.format, "format", "", "table, jsonl, csv or parquet (default: by the ending of --out, else table)")
	fl.StringVarP(&f.out, "out", "o", "", "`file` to write to (default: the standard output)")
	fl.StringVar(&f.explain, "explain", "", "`folder` to write explanations to: which neurons are uncovered, and where in the image")
	fl.BoolVar(&f.restart, "restart", false, "with --out: begin anew what an interrupted run has left")
	fl.StringVar(&f.root, "root", "", "`folder` that paths in lists are relative to (default: the list's)")
	fl.Float64Var(&f.fpr, "fpr", 0, "another false-alarm `rate` than the detector's")
	addShardFlag(cmd, &f.shard)
	fl.BoolVar(&f.quiet, "quiet", false, "no progress")
	complete(cmd, "format", func() []string { return formatNames })
	_ = cmd.MarkFlagFilename("model")
	_ = cmd.MarkFlagFilename("out")
	_ = cmd.MarkFlagDirname("root")
	_ = cmd.MarkFlagDirname("explain")
	return cmd
}

type scoreFlags struct {
	model, format, out, root, explain string
	fpr                               float64
	restart, quiet                    bool
	shard                             string
}

// openDetector loads a detector and its classifier, from model or from where it was, as
// plan wants it used.
func openDetector(file, model string, plan func(*nac.Model) *nac.Model) (*nac.Detector, error) {
	d, err := nac.Load(file, nil)
	if err != nil {
		return nil, err
	}
	m, err := openModelOf(d.Info().Model, file, model)
	if err != nil {
		return nil, err
	}
	return d, d.Attach(plan(m))
}

// openModelOf opens a classifier from model, or from where it was, or from beside file.
func openModelOf(info nac.ModelInfo, file, model string) (*nac.Model, error) {
	if model == "" {
		model = info.Path
		if _, err := os.Stat(model); err != nil {
			model = filepath.Join(filepath.Dir(file), filepath.Base(info.Path))
		}
		if _, err := os.Stat(model); err != nil || info.Path == "" {
			return nil, fmt.Errorf("the classifier %s is neither at %s nor beside %s; name its file with --model", info.Name, info.Path, file)
		}
	}
	return nac.Open(model, info.Architecture)
}

func (f *scoreFlags) run(ctx context.Context, file string, places []string, cmd *cobra.Command) error {
	stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	format, err := f.formatName()
	if err != nil {
		return err
	}
	if f.fpr != 0 && !(f.fpr > 0 && f.fpr < 1) {
		return usagef("--fpr is %v; it must be above 0 and below 1", f.fpr)
	}
	if i := slices.Index(places, "-"); i >= 0 && len(places) > 1 {
		return usagef("- besides other images: want one of them")
	}
	of, err := parseShard(f.shard)
	if err != nil {
		return err
	}
	if of.Of > 0 {
		switch {
		case f.out == "":
			return usagef("--shard needs --out: a file for each shard")
		case f.format != "":
			return usagef("--format is for \"nac merge\": a shard has a format of its own")
		case f.explain != "":
			return usagef("--explain is for a few images: leave out --shard")
		case places[0] == "-":
			return usagef("--shard: the standard input cannot be divided; name a file")
		}
	}
	lone := len(places) == 1 && imageset.IsImage(places[0]) && f.explain == "" && of.Of == 0
	d, err := openDetector(file, f.model, func(m *nac.Model) *nac.Model {
		if lone { // answered soonest by a network that is planned for one at a time
			return m.WithBatch(1)
		}
		return m
	})
	if err != nil {
		return err
	}
	if f.fpr != 0 {
		if d, err = d.WithRate(f.fpr); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shards := &imageset.Shards{Keep: 4}
	var why *explainer
	if f.explain != "" {
		if why, err = newExplainer(d, shards, f.explain); err != nil {
			return err
		}
	}
	var items iter.Seq2[imageset.Item, error]
	if places[0] == "-" {
		in := bufio.NewReader(cmd.InOrStdin())
		// As in files: a text has no NUL byte.
		if head, _ := in.Peek(512); bytes.IndexByte(head, 0) >= 0 {
			return f.scoreInput(ctx, d, why, in, format, stdout)
		}
		items = patient(ctx, imageset.FindLines(in, f.root))
	} else {
		for _, p := range places {
			if _, err := os.Stat(p); err != nil {
				return usageError{err}
			}
		}
		items = imageset.Find(shards, f.root, places...)
	}
	count := &tally{}
	if f.out == "" {
		w := newScoreWriter(format, stdout)
		err = f.score(ctx, d.ScoreAll(ctx, remote.FS{Context: ctx, Local: shards}, items), why, w.row, count, f.progress(stdout, stderr))
		err = errors.Join(err, w.close())
	} else {
		hash, e := hashFile(file)
		if e != nil {
			return e
		}
		head := journalHead{Detector: hash, Rate: d.Info().Rate, Images: places, Root: f.root}
		writer := func(w io.Writer) scoreWriter { return newScoreWriter(format, w) }
		if of.Of > 0 {
			head.Shard, items, err = shardOf(ctx, of, func() iter.Seq2[imageset.Item, error] { return imageset.Find(shards, f.root, places...) })
			if err != nil {
				return err
			}
			writer = func(w io.Writer) scoreWriter { return shardWriter(head, w) }
			if done, err := isDone(ctx, f.out, head, count); done || err != nil {
				return errors.Join(err, count.report(stderr, of.Of > 0))
			}
		}
		j, e := openJournal(f.out, head, f.restart)
		if e != nil {
			return e
		}
		defer j.close()
		items = j.rest(items, count)
		if count.images > 0 {
			fmt.Fprintf(stderr, "%s images were scored by an earlier run\n", thousands(count.images))
		}
		err = f.score(ctx, d.ScoreAll(ctx, remote.FS{Context: ctx, Local: shards}, items), why, j.add, count, f.progress(stdout, stderr))
		if err == nil {
			err = j.finish(writer)
		} else if count.images > 0 {
			err = fmt.Errorf("%w; %s images are done: call again to go on", err, thousands(count.images))
		}
	}
	if err != nil {
		return err
	}
	return count.report(stderr, of.Of > 0)
}

// report tells how many there were. Images that could not be scored fail the run, unless
// it is of a shard: a scheduler would call it again and again.
func (t *tally) report(stderr io.Writer, isShard bool) error {
	fmt.Fprintf(stderr, "%s images: %s ID, %s OOD, %s could not be scored\n",
		thousands(t.images), thousands(t.images-t.ood-t.failed), thousands(t.ood), thousands(t.failed))
	if isShard {
		return nil
	}
	if t.images == 0 {
		return errors.New("no images")
	}
	if t.failed > 0 {
		return partialError{fmt.Errorf("%s of %s images could not be scored; their rows say why", thousands(t.failed), thousands(t.images))}
	}
	return nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// progress is shown where it does not run into the rows.
func (f *scoreFlags) progress(stdout, stderr io.Writer) *progress {
	if f.quiet || f.out == "" && isTerminal(stdout) {
		return nil
	}
	p := newProgress(stderr)
	p.Begin("score", -1)
	return p
}

// tally counts rows.
type tally struct{ images, ood, failed int }

func (t *tally) add(r scoreRow) {
	t.images++
	switch r.Verdict {
	case verdictOOD:
		t.ood++
	case verdictError:
		t.failed++
	}
}

// score gives every row to take, after its image is explained.
func (f *scoreFlags) score(ctx context.Context, all iter.Seq2[nac.Scored, error], why *explainer, take func(scoreRow) error, count *tally, p *progress) error {
	if p != nil {
		defer p.End()
	}
	for s, err := range all {
		if err != nil {
			return err
		}
		if why != nil && s.Err == nil {
			if err := why.file(ctx, s.Path, count.images+1); err != nil {
				return err
			}
		}
		r := rowOf(s)
		if err := take(r); err != nil {
			return err
		}
		count.add(r)
		if p != nil {
			p.Advance(1)
		}
	}
	return nil
}

// scoreInput scores the image that in is.
func (f *scoreFlags) scoreInput(ctx context.Context, d *nac.Detector, why *explainer, in io.Reader, format string, stdout io.Writer) error {
	if f.out != "" {
		return usagef("--out is for more than one image")
	}
	const limit = 1 << 30
	data, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return err
	}
	img, err := imageset.DecodeBytes("the standard input", data)
	if err != nil {
		return err
	}
	s := nac.Scored{Path: "-"}
	if s.Result, err = d.Score(ctx, img); err != nil {
		return err
	}
	if why != nil {
		if err := why.image(ctx, img, "input", 1); err != nil {
			return err
		}
	}
	w := newScoreWriter(format, stdout)
	return errors.Join(w.row(rowOf(s)), w.close())
}

// patient yields a sequence that may wait for somebody, until ctx is done.
func patient(ctx context.Context, items iter.Seq2[imageset.Item, error]) iter.Seq2[imageset.Item, error] {
	type next struct {
		item imageset.Item
		err  error
	}
	return func(yield func(imageset.Item, error) bool) {
		c := make(chan next)
		go func() {
			defer close(c)
			for item, err := range items {
				select {
				case c <- next{item, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
		for {
			select {
			case n, ok := <-c:
				if !ok || !yield(n.item, n.err) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}
