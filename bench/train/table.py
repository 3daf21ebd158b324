#!/usr/bin/env python3
"""Writes the table.csv of sweeps as rows of the Markdown table of docs/nac-me.md.

    python bench/train/table.py NAME=SWEEP/table.csv ...

NAME is what the data set is called. Means over seeds, in percent.
"""
import csv
import sys

COLUMNS = ["oracle", "last", "validation", "coverage", "coverage_rc", "val_rc", "oracle_rc",
           "coverage_r", "coverage_tau", "val_r", "val_tau"]


def percent(text):
    return f"{100 * float(text):.2f}".replace("-", "−") if text else "–"


def main():
    print("| left out | algorithm | seeds | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---:|" * (len(COLUMNS) + 1))
    for arg in sys.argv[1:]:
        name, path = arg.split("=", 1)
        with open(path, newline="") as f:
            for row in csv.DictReader(f):
                domain = row["test_domain"].replace("-", "−")
                print(f"| {name} {domain} | {row['algorithm']} | {row['runs']} | " + " | ".join(percent(row[c]) for c in COLUMNS) + " |")


if __name__ == "__main__":
    main()
