package train

import (
	"context"
	"strings"
	"testing"
)

// A second run does not write over what the first is writing.
func TestOneRunAtATime(t *testing.T) {
	dir := t.TempDir()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := task(dir).Run(context.Background()); err == nil || !strings.Contains(err.Error(), "another run is writing to "+dir) {
		t.Errorf("a second run: %v", err)
	}
	release()
	if _, err := task(dir).Run(context.Background()); err != nil {
		t.Errorf("after the first: %v", err)
	}
}
