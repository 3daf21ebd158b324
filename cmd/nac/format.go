package main

import "nac/internal/format"

// Short names for what is written everywhere.
var (
	thousands = format.Thousands
	seconds   = format.Seconds
	megabytes = format.Megabytes
	percent   = format.Percent
)
