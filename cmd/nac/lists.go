package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"nac/arch"
	"nac/detector"
	"nac/internal/kernel"
)

func newDetectorsCommand() *cobra.Command {
	var settings bool
	cmd := &cobra.Command{
		Use:   "detectors",
		Short: "List the detectors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if settings {
				return printLines(cmd.OutOrStdout(), paramTable())
			}
			t := newTable("key", "score (higher = more in-distribution)", "paper")
			for _, m := range detector.Methods() {
				t.AppendRow(table.Row{m.Key, m.About, m.Paper})
			}
			return printLines(cmd.OutOrStdout(), t.Render())
		},
	}
	cmd.Flags().BoolVar(&settings, "settings", false, "list what --set can set")
	return cmd
}

// paramTable lists the settings that are one number.
func paramTable() string {
	t := newTable("setting", "what it is", "default", "from", "to", "tried by --aps")
	for _, m := range detector.Methods() {
		for _, p := range m.Params {
			var tried []string
			for _, v := range p.Sweep {
				tried = append(tried, fmt.Sprint(v))
			}
			t.AppendRow(table.Row{m.Key + "." + p.Name, p.About, fmt.Sprint(p.Default), fmt.Sprint(p.Min), fmt.Sprint(p.Max), strings.Join(tried, ", ")})
		}
	}
	return t.Render()
}

func newArchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "arch",
		Short: "List the network architectures",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := newTable("name", "network")
			for _, name := range arch.Names() {
				t.AppendRow(table.Row{name, arch.About(name)})
			}
			return printLines(cmd.OutOrStdout(), t.Render())
		},
	}
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version and the instruction sets of this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var sets []string
			for _, s := range kernel.Available() {
				sets = append(sets, s.Name())
			}
			return printLines(cmd.OutOrStdout(), fmt.Sprintf("nac %s, %s %s/%s, instruction sets: %s",
				version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(sets, ", ")))
		},
	}
}

// version is that of the module, with the commit if Go has noted it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}

func printLines(w io.Writer, lines ...string) error {
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
