package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"reflect"
	"time"

	"github.com/gofrs/flock"

	"nac/imageset"
	"nac/internal/atomicfile"
)

// journal is the file OUT.partial in which a run notes its rows, JSON lines after a
// head, until all is done: what is in it survives a crash and is not scored again.
type journal struct {
	out     string
	file    *os.File
	w       *bufio.Writer
	encoder *json.Encoder
	lock    *flock.Flock
	old     *bufio.Reader // rows of earlier runs that were not compared yet
	synced  time.Time
}

// journalHead says what rows belong to.
type journalHead struct {
	Detector string   `json:"detector_sha256"`
	Rate     float64  `json:"false_alarm_rate"`
	Images   []string `json:"images"`
	Root     string   `json:"root,omitempty"`
	// Shard is there if not all images are scored.
	Shard *journalShard `json:"shard,omitempty"`
}

// syncEvery is how much work a power cut may cost.
const syncEvery = 5 * time.Second

func openJournal(out string, head journalHead, restart bool) (_ *journal, err error) {
	if info, err := os.Stat(out); err == nil && !info.Mode().IsRegular() {
		return nil, usagef("--out: %s is no regular file", out)
	}
	name := out + ".partial"
	j := &journal{out: out, lock: flock.New(name + ".lock")}
	locked, err := j.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("--out: another run is writing %s", out)
	}
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	if restart {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("--out: %w", err)
		}
	}
	if j.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	end, err := wholeLines(j.file)
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	if err := j.file.Truncate(end); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	if _, err := j.file.Seek(end, io.SeekStart); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	j.w = bufio.NewWriter(j.file)
	j.encoder = json.NewEncoder(j.w)
	j.encoder.SetEscapeHTML(false)
	j.old = bufio.NewReader(io.NewSectionReader(j.file, 0, end))
	if end == 0 {
		return j, j.encoder.Encode(head)
	}
	var had journalHead
	if err := j.next(&had); err != nil {
		return nil, fmt.Errorf("%s: %w; --restart begins anew", name, err)
	}
	if !reflect.DeepEqual(had, head) {
		return nil, fmt.Errorf("%s is of a run with another detector, rate or images (%v); --restart begins anew", name, had.Images)
	}
	return j, nil
}

// wholeLines returns where the last whole line ends.
func wholeLines(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<16)
	for end := info.Size(); end > 0; {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		for i := n; i > 0; i-- {
			if buf[i-1] == '\n' {
				return end - n + i, nil
			}
		}
		end -= n
	}
	return 0, nil
}

// next reads a line of an earlier run.
func (j *journal) next(v any) error {
	line, err := j.old.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// rest yields the items that have no row yet. Those that have one must be the same
// as before.
func (j *journal) rest(items iter.Seq2[imageset.Item, error], count *tally) iter.Seq2[imageset.Item, error] {
	next, stop := iter.Pull2(items)
	fail := func(err error) iter.Seq2[imageset.Item, error] {
		stop()
		return func(yield func(imageset.Item, error) bool) { yield(imageset.Item{}, err) }
	}
	for {
		var r scoreRow
		err := j.next(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fail(fmt.Errorf("%s.partial: %w; --restart begins anew", j.out, err))
		}
		item, err, ok := next()
		if err != nil {
			return fail(err)
		}
		if !ok || item.Path != r.Path {
			return fail(fmt.Errorf("%s.partial: image %d was %s and is now %q: the images have changed; --restart begins anew", j.out, count.images+1, r.Path, item.Path))
		}
		count.add(r)
	}
	return func(yield func(imageset.Item, error) bool) {
		defer stop()
		for {
			if item, err, ok := next(); !ok || !yield(item, err) {
				return
			}
		}
	}
}

// add notes a row.
func (j *journal) add(r scoreRow) error {
	if err := j.encoder.Encode(r); err != nil {
		return err
	}
	if time.Since(j.synced) < syncEvery {
		return nil
	}
	j.synced = time.Now()
	if err := j.w.Flush(); err != nil {
		return err
	}
	return j.file.Sync()
}

// finish writes all rows to the file asked for and removes the journal.
func (j *journal) finish(writer func(io.Writer) scoreWriter) error {
	if err := j.w.Flush(); err != nil {
		return err
	}
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	rows := json.NewDecoder(bufio.NewReader(j.file))
	var head journalHead
	if err := rows.Decode(&head); err != nil {
		return err
	}
	err := atomicfile.Write(j.out, func(w io.Writer) error {
		to := writer(w)
		for {
			var r scoreRow
			err := rows.Decode(&r)
			if errors.Is(err, io.EOF) {
				return to.close()
			}
			if err == nil {
				err = to.row(r)
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	return os.Remove(j.file.Name())
}

// close keeps what was noted, unless finish has removed it.
func (j *journal) close() {
	if j.file != nil {
		_ = j.w.Flush()
		_ = j.file.Close()
	}
	_ = j.lock.Unlock()
	_ = os.Remove(j.lock.Path())
}
