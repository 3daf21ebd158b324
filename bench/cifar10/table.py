"""The tables of docs/results-cifar10.md, from what run.sh wrote.

    table.py OUT REFERENCE20.json[,...] REFERENCE32.json[,...]

A reference file has the rows of the reference's own code, [FPR@95, AUROC, ...] in
percent by set, for each method; bench/real/reference.py writes those of methods that the
others lack."""
import json
import sys

SETS = ["tin", "mnist", "texture"]
out, references = sys.argv[1], dict(zip(["resnet20", "resnet32"], sys.argv[2:4]))


def rows(path):
    """(AUROC, FPR@95) in percent by detector and set, and the cost of each detector."""
    report = json.load(open(path + "/report.json"))
    table, cost = {}, {}
    for m in report["methods"]:
        r = {x["set"]: x["result"] for x in m["near"] + m["far"]}
        r["near"], r["far"] = m["near_mean"], m["far_mean"]
        table[m["key"]] = {s: (100 * v["AUROC"], 100 * v["FPR95"]) for s, v in r.items()}
        cost[m["key"]] = m["cost"]
    return table, cost


def size(n):
    for unit in ["B", "KiB", "MiB"]:
        if n < 1024:
            break
        n /= 1024
    return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"


differences = []
for network, file in references.items():
    table, cost = rows(f"{out}/{network}")
    single, single_cost = rows(f"{out}/{network}-nac")
    table["nac"], cost["nac"] = single["nac"], single_cost["nac"]
    reference = {}
    for name in file.split(","):
        numbers = json.load(open(name))
        reference.update(numbers.get("methods") or {k: {"rows": v} for k, v in numbers["rows"].items()})
    order = sorted(table, key=lambda k: -(table[k]["near"][0] + table[k]["far"][0]))
    best = {s: max(table[k][s][0] for k in order) for s in ["near", "far"] + SETS}

    def cell(k, s):
        a, f = table[k][s]
        text = f"{a:.2f}"
        return (f"**{text}**" if a == best[s] else text) + f" / {f:.2f}"

    print(f"### {network}\n\nAUROC / FPR@95 in percent.\n")
    print("| detector | near (tin) | far | mnist | texture | fit, s | score, s | state |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for k in order:
        c = cost[k]
        print(f"| {k} | {cell(k, 'near')} | {cell(k, 'far')} | {cell(k, 'mnist')} | {cell(k, 'texture')} "
              f"| {c['fit_seconds']:.2f} | {c['score_seconds']:.2f} | {size(c['state_bytes'])} |")
    print("\nThe reference's numbers beside, and ours less the reference's:\n")
    print("| detector |" + "".join(f" {s} | difference |" for s in SETS) + "\n|---|" + 2 * len(SETS) * "---:|")
    worst = 0
    for k in order:
        if k not in reference:
            continue
        line = f"| {k} |"
        for s in SETS:
            f, a = reference[k]["rows"][s][:2]
            da, df = table[k][s][0] - a, table[k][s][1] - f
            worst = max(worst, abs(da), abs(df))
            for what, d, ref in [("AUROC", da, a), ("FPR@95", df, f)]:
                if abs(d) > 0.05:
                    differences.append((network, k, s, what, ref + d, ref, d))
            line += f" {a:.3f} / {f:.3f} | {da:+.3f} / {df:+.3f} |"
        print(line)
    print(f"\nLargest difference: {worst:.3f} points.\n")
print("### Above 0.05 points\n\n| network | detector | set | number | here | reference | difference |\n|---|---|---|---|---:|---:|---:|")
for n, k, s, what, here, ref, d in differences:
    print(f"| {n} | {k} | {s} | {what} | {here:.3f} | {ref:.3f} | {d:+.3f} |")
