package main

import (
	"github.com/spf13/cobra"

	"nac/shard"
)

// addShardFlag adds --shard, which parseShard reads.
func addShardFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "shard", "", "do `i/n` of the work: part i of n, from 0; see \"nac merge\"")
}

// parseShard returns the whole if the flag was not set.
func parseShard(text string) (shard.Shard, error) {
	if text == "" {
		return shard.Shard{}, nil
	}
	s, err := shard.Parse(text)
	if err != nil {
		return s, usagef("--shard: %w", err)
	}
	return s, nil
}
