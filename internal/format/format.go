// Package format writes numbers for people to read.
package format

import (
	"fmt"
	"strconv"
)

// Thousands writes 12345 as 12,345.
func Thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Seconds writes a duration with a fitting unit.
func Seconds(s float64) string {
	switch {
	case s >= 3600:
		return fmt.Sprintf("%.1f h", s/3600)
	case s >= 120:
		return fmt.Sprintf("%.1f min", s/60)
	case s >= 10:
		return fmt.Sprintf("%.0f s", s)
	}
	return fmt.Sprintf("%.2f s", s)
}

// Megabytes writes a size, rounded up.
func Megabytes(b int64) string { return Thousands(int((b+1<<20-1)>>20)) + " MB" }

// Percent writes a fraction in percent.
func Percent(f float64) string { return strconv.FormatFloat(100*f, 'f', 2, 64) }
