package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nac/internal/kernel"
)

// transcript is a command of a console block and what it prints; a line of "..." stands
// for any number of lines.
type transcript struct {
	args   []string
	prints []string
}

// transcripts reads the console blocks of a Markdown text.
func transcripts(t *testing.T, text string) (all []transcript) {
	t.Helper()
	for _, block := range strings.Split(text, "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", "")) {
			line = strings.TrimRight(line, " \n")
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				args, ok := strings.CutPrefix(command, "go run ./cmd/nac ")
				if !ok {
					t.Fatalf("a command that is not nac's: %s", command)
				}
				all = append(all, transcript{args: strings.Fields(args)})
			} else {
				last := &all[len(all)-1]
				last.prints = append(last.prints, line)
			}
		}
	}
	return all
}

// matches tells whether the printed lines are those of the transcript. Between lines of
// "..." they must follow one another.
func matches(printed, want []string) bool {
	if len(want) == 0 {
		return len(printed) == 0
	}
	if want[0] == "..." {
		for i := range len(printed) + 1 {
			if matches(printed[i:], want[1:]) {
				return true
			}
		}
		return false
	}
	return len(printed) > 0 && strings.TrimRight(printed[0], " ") == want[0] && matches(printed[1:], want[1:])
}

// The README's commands print what it says, number for number.
func TestReadme(t *testing.T) {
	if kernel.Best().Name() == "portable" {
		t.Skip("the portable kernels take minutes for this, and round otherwise")
	}
	text := string(read(t, filepath.Join("..", "..", "README.md")))
	t.Chdir(t.TempDir())
	all := transcripts(t, text)
	if len(all) < 3 {
		t.Fatalf("%d commands in the README", len(all))
	}
	for _, c := range all {
		stdout := ok(t, c.args...)
		if !matches(strings.Split(strings.TrimSuffix(stdout, "\n"), "\n"), c.prints) {
			t.Errorf("nac %s prints\n%s\nthe README says\n%s", strings.Join(c.args, " "), stdout, strings.Join(c.prints, "\n"))
		}
	}
	if _, err := os.Stat("fashion.nac"); err != nil {
		t.Error(err)
	}
}
