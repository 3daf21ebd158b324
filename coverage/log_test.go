package coverage

import (
	"math"
	"testing"
)

// TestNPLog bounds the error of the logarithm that spaces the thresholds.
func TestNPLog(t *testing.T) {
	for x := 1.0; x <= 1000; x += 0.0137 {
		got, want := npLog(x), math.Log(x)
		if math.Abs(got-want) > 2*(math.Nextafter(want, 2*want)-want) {
			t.Fatalf("ln(%v) = %.17g, want about %.17g", x, got, want)
		}
	}
	if got := npLog(1); got != 0 {
		t.Errorf("ln(1) = %v", got)
	}
}
