package shard

import (
	"slices"
	"strings"
	"testing"
)

func TestRangesCoverTheList(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 100, 101, 1 << 31} {
		for of := 1; of <= 130; of += 3 {
			at := 0
			for i := range of {
				first, last := Shard{i, of}.Range(n)
				if first != at || last-first < n/of || last-first > n/of+1 {
					t.Fatalf("shard %d/%d of %d images: %d to %d, want to begin at %d", i, of, n, first, last, at)
				}
				at = last
			}
			if at != n {
				t.Fatalf("%d shards of %d images end at %d", of, n, at)
			}
		}
	}
	if first, last := (Shard{}).Range(5); first != 0 || last != 5 {
		t.Errorf("the whole is %d to %d", first, last)
	}
}

func TestParse(t *testing.T) {
	if s, err := Parse("3/4"); err != nil || s != (Shard{3, 4}) || s.String() != "3/4" {
		t.Errorf("%v, %v", s, err)
	}
	for _, text := range []string{"", "1", "/", "1/", "/2", "2/2", "-1/2", "0/0", "0/-1", "1/2/3", "0/9999999999", "a/b", "0/1048577"} {
		if s, err := Parse(text); err == nil {
			t.Errorf("%q is %v", text, s)
		}
	}
}

func TestPlace(t *testing.T) {
	names := []string{"a", "b", "c"}
	if p, err := Place([]Shard{{2, 3}, {0, 3}, {1, 3}}, names); err != nil || !slices.Equal(p, []int{1, 2, 0}) {
		t.Errorf("%v, %v", p, err)
	}
	for _, c := range []struct {
		all  []Shard
		says string
	}{
		{nil, "no shards"},
		{[]Shard{{2, 4}, {0, 4}}, "2 of 4 shards missing: 1/4, 3/4"},
		{[]Shard{{0, 2}, {1, 3}}, "b is shard 1/3"},
		{[]Shard{{0, 2}, {1, 2}, {1, 2}}, "b and c are both shard 1/2"},
		{[]Shard{{}}, "a: shard 0/0"},
		{[]Shard{{5, 2}}, "a: shard 5/2"},
		{[]Shard{{0, 1000}}, "999 of 1000"},
	} {
		if _, err := Place(c.all, names); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.all, err, c.says)
		}
	}
}
