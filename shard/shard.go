// Package shard divides work among n processes that know nothing of each other: each
// is told its number, and which images are its own follows from that alone.
package shard

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Shard is one of Of equal parts of a list, numbered from 0. The zero Shard is the
// whole.
type Shard struct {
	Index int `json:"index"`
	Of    int `json:"of"`
}

// most bounds how many shards there can be: a list of them is held in memory.
const most = 1 << 20

// Parse reads "i/n", i from 0 to n-1.
func Parse(text string) (Shard, error) {
	i, n, ok := strings.Cut(text, "/")
	index, err1 := strconv.Atoi(i)
	of, err2 := strconv.Atoi(n)
	if !ok || err1 != nil || err2 != nil {
		return Shard{}, fmt.Errorf("%q is no shard: want i/n, such as 0/4", text)
	}
	s := Shard{index, of}
	if of == 0 {
		return Shard{}, fmt.Errorf("%q: there are no 0 shards", text)
	}
	return s, s.Validate()
}

// Validate returns an error if there is no such shard.
func (s Shard) Validate() error {
	switch {
	case s == Shard{}:
	case s.Of < 1 || s.Of > most:
		return fmt.Errorf("shard %v: want 1 to %d shards", s, most)
	case s.Index < 0 || s.Index >= s.Of:
		return fmt.Errorf("shard %v: %d shards are numbered 0 to %d", s, s.Of, s.Of-1)
	}
	return nil
}

func (s Shard) String() string { return fmt.Sprintf("%d/%d", s.Index, s.Of) }

// Range returns the shard's images of a list of n: first to last, not included. The
// shards' ranges follow each other, cover the list, and differ in length by at most one.
func (s Shard) Range(n int) (first, last int) {
	if s.Of == 0 {
		return 0, n
	}
	// As n/of and n%of separately: the product would overflow for long lists.
	q, r := n/s.Of, n%s.Of
	at := func(i int) int { return i*q + i*r/s.Of }
	return at(s.Index), at(s.Index + 1)
}

// Place returns where each shard stands in all, by number. It fails unless each of the
// n shards is there exactly once, and names those that are missing or there twice;
// names say where they came from.
func Place(all []Shard, names []string) ([]int, error) {
	if len(all) == 0 {
		return nil, fmt.Errorf("no shards")
	}
	of := all[0].Of
	places := slices.Repeat([]int{-1}, of)
	for i, s := range all {
		if err := s.Validate(); err != nil || s.Of == 0 {
			return nil, fmt.Errorf("%s: shard %v", names[i], s)
		}
		if s.Of != of {
			return nil, fmt.Errorf("%s is shard %v, but %s is %v: of another number of shards", names[i], s, names[0], all[0])
		}
		if j := places[s.Index]; j >= 0 {
			return nil, fmt.Errorf("%s and %s are both shard %v", names[j], names[i], s)
		}
		places[s.Index] = i
	}
	var missing []string
	for i, p := range places {
		if p < 0 {
			missing = append(missing, Shard{i, of}.String())
		}
	}
	const shown = 10
	switch n := len(missing); {
	case n > shown:
		return nil, fmt.Errorf("%d of %d shards are missing: %s and others", n, of, strings.Join(missing[:shown], ", "))
	case n > 0:
		return nil, fmt.Errorf("%d of %d shards missing: %s", n, of, strings.Join(missing, ", "))
	}
	return places, nil
}
