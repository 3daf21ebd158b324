package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"

	"nac/imageset"
	"nac/internal/atomicfile"
	"nac/shard"
)

// A shard of scores is JSON lines: a scoreHead, a row for each image, a scoreTail.
const (
	scoresFormat  = "nac-scores"
	scoresVersion = 1
)

// scoreHead says what the rows of a shard belong to.
type scoreHead struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	journalHead
}

// scoreTail is the last line: without it the shard is not whole.
type scoreTail struct {
	Rows int    `json:"rows"`
	Hash string `json:"sha256"` // of the lines of rows
}

// journalShard says which images a journal is of.
type journalShard struct {
	shard.Shard
	First  int    `json:"first"`  // position of the first image
	Count  int    `json:"count"`  // of images
	Images int    `json:"images"` // of all shards
	Hash   string `json:"sha256"` // of all paths
}

// shardOf counts all images to find which are the shard's, and returns those.
func shardOf(ctx context.Context, s shard.Shard, all func() iter.Seq2[imageset.Item, error]) (*journalShard, iter.Seq2[imageset.Item, error], error) {
	j := &journalShard{Shard: s}
	paths := sha256.New()
	for item, err := range all() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(paths, "%q\n", item.Path)
		j.Images++
	}
	j.Hash = hex.EncodeToString(paths.Sum(nil))
	first, last := s.Range(j.Images)
	j.First, j.Count = first, last-first
	return j, func(yield func(imageset.Item, error) bool) {
		at := 0
		for item, err := range all() {
			if at == last {
				return
			}
			if (err != nil || at >= first) && !yield(item, err) {
				return
			}
			at++
		}
	}, nil
}

// shardWriter writes a shard.
func shardWriter(head journalHead, w io.Writer) scoreWriter {
	sum := sha256.New()
	encoder := func(w io.Writer) *json.Encoder {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e
	}
	out, rows := encoder(w), encoder(io.MultiWriter(w, sum))
	begun, n := false, 0
	begin := func() error {
		if begun {
			return nil
		}
		begun = true
		return out.Encode(scoreHead{scoresFormat, scoresVersion, head})
	}
	return scoreWriter{func(r scoreRow) error {
		n++
		return errors.Join(begin(), rows.Encode(r))
	}, func() error {
		return errors.Join(begin(), out.Encode(scoreTail{n, hex.EncodeToString(sum.Sum(nil))}))
	}}
}

// scoreShard is an open shard.
type scoreShard struct {
	name  string
	file  *os.File
	lines *bufio.Reader
	head  scoreHead
	sum   hash.Hash
}

// openScoreShard reads the head; the error for a file that is no shard of scores wraps
// errNoShard.
func openScoreShard(name string) (_ *scoreShard, err error) {
	s := &scoreShard{name: name, sum: sha256.New()}
	if s.file, err = os.Open(name); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.file.Close()
		}
	}()
	s.lines = bufio.NewReader(s.file)
	start := []byte(fmt.Sprintf(`{"format":%q,`, scoresFormat))
	if head, _ := s.lines.Peek(len(start)); !bytes.Equal(head, start) {
		return nil, fmt.Errorf("%s: %w", name, errNoShard)
	}
	line, err := s.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.head)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: its head: %w", name, err)
	}
	h := s.head.Shard
	if s.head.Version != scoresVersion || h == nil || h.Of == 0 || h.Validate() != nil {
		return nil, fmt.Errorf("%s: version %d, shard %v; this program reads version %d", name, s.head.Version, h, scoresVersion)
	}
	if first, last := h.Range(h.Images); h.First != first || h.Count != last-first {
		return nil, fmt.Errorf("%s: %d images from %d on are not shard %v of %d", name, h.Count, h.First, h.Shard, h.Images)
	}
	return s, nil
}

var errNoShard = errors.New("no shard of scores")

// rows gives every row to take, and then compares number and checksum.
func (s *scoreShard) rows(ctx context.Context, take func(scoreRow) error) error {
	cut := func(err error) error {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s is not whole: it ends in the middle", s.name)
		}
		return fmt.Errorf("%s: %w", s.name, err)
	}
	for range s.head.Shard.Count {
		line, err := s.lines.ReadBytes('\n')
		if err != nil {
			return cut(err)
		}
		s.sum.Write(line)
		var r scoreRow
		if err := json.Unmarshal(line, &r); err != nil {
			return cut(err)
		}
		// A tail reads as a row without a path.
		if r.Path == "" || r.Verdict == "" || r.Verdict != verdictError && (r.Score == nil || r.PValue == nil || r.Class == nil || r.Probability == nil) {
			return fmt.Errorf("%s: a row that lacks something: %.100s", s.name, line)
		}
		if err := take(r); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	line, err := s.lines.ReadBytes('\n')
	if err != nil {
		return cut(err)
	}
	var tail scoreTail
	if err := json.Unmarshal(line, &tail); err != nil {
		return cut(err)
	}
	if want := (scoreTail{s.head.Shard.Count, hex.EncodeToString(s.sum.Sum(nil))}); tail != want {
		return fmt.Errorf("%s was damaged: its rows have SHA-256 %.12s..., its end says %.12s... of %d rows", s.name, want.Hash, tail.Hash, tail.Rows)
	}
	if _, err := s.lines.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: something after its end", s.name)
	}
	return nil
}

// isDone tells whether the shard is in the file already. A file of something else is an
// error.
func isDone(ctx context.Context, name string, head journalHead, count *tally) (bool, error) {
	s, err := openScoreShard(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("--out: %w; it is not overwritten", err)
	}
	defer s.file.Close()
	if why := s.head.differs(head); why != "" || s.head.Shard.Shard != head.Shard.Shard {
		return false, fmt.Errorf("--out: %s is shard %v of something else%s; it is not overwritten", name, s.head.Shard.Shard, why)
	}
	return true, s.rows(ctx, func(r scoreRow) error {
		count.add(r)
		return nil
	})
}

// differs tells in what two shards may not differ.
func (h journalHead) differs(o journalHead) string {
	switch {
	case h.Detector != o.Detector:
		return fmt.Sprintf(": another detector: SHA-256 of its file %.12s... against %.12s...", h.Detector, o.Detector)
	case h.Rate != o.Rate:
		return fmt.Sprintf(": another false-alarm rate: %v against %v", h.Rate, o.Rate)
	case h.Shard.Images != o.Shard.Images || h.Shard.Hash != o.Shard.Hash:
		return fmt.Sprintf(": other images: %d, SHA-256 of their paths %.12s..., against %d, %.12s...", h.Shard.Images, h.Shard.Hash, o.Shard.Images, o.Shard.Hash)
	}
	return ""
}

// mergeScores writes the rows of all shards to a file, as one run would have.
func mergeScores(ctx context.Context, names []string, format, out string, count *tally) error {
	var all []*scoreShard
	defer func() {
		for _, s := range all {
			s.file.Close()
		}
	}()
	var shards []shard.Shard
	for _, name := range names {
		s, err := openScoreShard(name)
		if err != nil {
			return err
		}
		all = append(all, s)
		if why := all[0].head.differs(s.head.journalHead); why != "" {
			return fmt.Errorf("%s and %s are shards of different work%s", names[0], name, why)
		}
		shards = append(shards, s.head.Shard.Shard)
	}
	places, err := shard.Place(shards, names)
	if err != nil {
		return err
	}
	return atomicfile.Write(out, func(w io.Writer) error {
		to := newScoreWriter(format, w)
		for _, p := range places {
			err := all[p].rows(ctx, func(r scoreRow) error {
				count.add(r)
				return to.row(r)
			})
			if err != nil {
				return err
			}
		}
		return to.close()
	})
}
