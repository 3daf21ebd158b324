package main

import (
	"slices"
	"strings"
)

func list(names []string) string { return strings.Join(names, ", ") }

// oneOf returns a usage error that lists the valid values if value is none.
func oneOf(what, value string, valid []string) error {
	if slices.Contains(valid, value) {
		return nil
	}
	return usagef("%s: there is no %q; one of %s", what, value, list(valid))
}
