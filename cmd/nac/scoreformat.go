package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"nac"
)

// scoreRow is a line of output. Of an image that could not be scored there are path,
// verdict and error alone.
type scoreRow struct {
	Path        string   `json:"path" parquet:"path"`
	Verdict     string   `json:"verdict" parquet:"verdict,dict"`
	Score       *float64 `json:"score,omitempty" parquet:"score,optional"`
	PValue      *float64 `json:"p_value,omitempty" parquet:"p_value,optional"`
	Class       *int32   `json:"class,omitempty" parquet:"class,optional"`
	ClassName   string   `json:"class_name,omitempty" parquet:"class_name,optional,dict"`
	Probability *float64 `json:"probability,omitempty" parquet:"probability,optional"`
	Error       string   `json:"error,omitempty" parquet:"error,optional"`
}

const (
	verdictID    = "ID"
	verdictOOD   = "OOD"
	verdictError = "error"
)

func rowOf(s nac.Scored) scoreRow {
	r := scoreRow{Path: s.Path, Verdict: verdictID}
	if s.Err != nil {
		r.Verdict, r.Error = verdictError, oneLine(s.Err.Error())
		return r
	}
	if s.OOD {
		r.Verdict = verdictOOD
	}
	class := int32(s.Class)
	r.Score, r.PValue, r.Class, r.ClassName, r.Probability = &s.Score, &s.PValue, &class, s.ClassName, &s.Probability
	return r
}

var formatNames = []string{"table", "jsonl", "csv", "parquet"}

// formatName is --format, or what the ending of --out says.
func (f *scoreFlags) formatName() (string, error) {
	if f.format != "" {
		return f.format, oneOf("--format", f.format, formatNames)
	}
	switch ext := strings.ToLower(filepath.Ext(f.out)); {
	case ext == ".json", ext == ".ndjson":
		return "jsonl", nil
	case ext != "" && slices.Contains(formatNames, ext[1:]):
		return ext[1:], nil
	}
	return "table", nil
}

// scoreWriter writes rows as they come.
type scoreWriter struct {
	row   func(scoreRow) error
	close func() error
}

func newScoreWriter(format string, w io.Writer) scoreWriter {
	switch format {
	case "jsonl":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return scoreWriter{func(r scoreRow) error { return e.Encode(r) }, func() error { return nil }}
	case "csv":
		return csvWriter(w)
	case "parquet":
		p := parquet.NewGenericWriter[scoreRow](w, parquet.Compression(&parquet.Zstd), parquet.MaxRowsPerRowGroup(1<<16))
		return scoreWriter{func(r scoreRow) error {
			_, err := p.Write([]scoreRow{r})
			return err
		}, p.Close}
	}
	return tableWriter(w)
}

func csvWriter(w io.Writer) scoreWriter {
	c := csv.NewWriter(w)
	begun := false
	header := func() error {
		if begun {
			return nil
		}
		begun = true
		return c.Write([]string{"path", "verdict", "score", "p_value", "class", "class_name", "probability", "error"})
	}
	number := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'g', -1, 64)
	}
	return scoreWriter{func(r scoreRow) error {
		if err := header(); err != nil {
			return err
		}
		class := ""
		if r.Class != nil {
			class = strconv.Itoa(int(*r.Class))
		}
		return c.Write([]string{r.Path, r.Verdict, number(r.Score), number(r.PValue), class, r.ClassName, number(r.Probability), r.Error})
	}, func() error {
		if err := header(); err != nil {
			return err
		}
		c.Flush()
		return c.Error()
	}}
}

// tableWriter has columns of fixed width, as rows come one by one; the path, which
// may be long, is the last.
func tableWriter(w io.Writer) scoreWriter {
	b := bufio.NewWriter(w)
	begun := false
	return scoreWriter{func(r scoreRow) error {
		if !begun {
			begun = true
			fmt.Fprintln(b, "verdict     score   p-value  prob.  class            image")
		}
		if r.Error != "" {
			fmt.Fprintf(b, "%-57s %s: %s\n", r.Verdict, r.Path, r.Error)
			return b.Flush()
		}
		class := strconv.Itoa(int(*r.Class))
		if r.ClassName != "" {
			class = r.ClassName
		}
		fmt.Fprintf(b, "%-7s %9.4f  %8.4f  %5.3f  %-16s %s\n", r.Verdict, *r.Score, *r.PValue, *r.Probability, class, r.Path)
		return b.Flush()
	}, b.Flush}
}
