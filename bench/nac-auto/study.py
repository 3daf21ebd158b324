"""Coverage rules compared on what extract wrote: AUROC of near / far-OOD, in percent.

    python study.py DIR...    one folder a network; needs numpy, scipy, safetensors

Near is val_cifar10 against val_tin, far the mean over the images that extract makes
of training images. Detectors are fitted on both lists of training images. No test
list is read.
"""
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.stats import rankdata

FAR = ["shuffle", "noise", "blocks", "jigsaw", "binary", "tile", "edges", "zoom"]
LAYERS = ["avgpool", "layer2", "layer1"]  # layer3's pooled states are avgpool's


def auroc(id_, ood):
    r = rankdata(np.concatenate([id_, ood]))
    n, m = len(id_), len(ood)
    return 100 * (r[:n].sum() - n * (n + 1) / 2) / (n * m)


def thresholds(m):
    h = m // 2
    rising = np.log(np.linspace(1, np.sqrt(1000), h)) / np.log(1000)
    t = np.concatenate([rising[: h - 1], 1 - rising[::-1]])
    t[-1] += 0.01
    return np.append(t, 1.2)


class Sigmoid:
    """NAC's histogram of sigmoid(state / scale)."""

    def __init__(self, train, scale, m=50, o=3, centre=0):
        self.scale, self.centre, self.th = scale, centre, thresholds(m)
        b = self.bins(train)
        counts = np.stack([np.bincount(c, minlength=m)[:m] for c in b.T], 1)
        self.cover = np.minimum(counts / (o / 100 * len(train)), 1)

    def bins(self, x):
        s = 1 / (1 + np.exp(-np.clip((x - self.centre) / self.scale, -700, 700)))
        return np.searchsorted(self.th, s, "right") - 1

    def __call__(self, x):
        return self.cover[self.bins(x), np.arange(x.shape[1])]


class Tails:
    """min(images at or below, images at or above, O) / O."""

    def __init__(self, train, o):
        self.sorted, self.o = np.sort(train, 0), o / 100 * len(train)

    def __call__(self, x):
        n = len(self.sorted)
        u = [np.minimum(np.searchsorted(s, v, "right"), n - np.searchsorted(s, v, "left")) for s, v in zip(self.sorted.T, x.T)]
        return np.minimum(np.stack(u, 1) / self.o, 1)


class Network:
    def __init__(self, folder):
        names = ["main_train_cifar10", "sub_train_cifar10", "val_cifar10", "val_tin"] + ["far." + k for k in FAR]
        files = [load_file(Path(folder) / f"{n}.safetensors") for n in names]
        train = {k: np.concatenate([files[0][k], files[1][k]]) for k in files[0]}
        self.sets = [{k: v.astype(float) for k, v in f.items()} for f in [train] + files[2:]]

    def states(self, layer, kind):
        return [{"z": s[layer + ".z"], "g": s[layer + ".g"], "z*g": s[layer + ".z"] * s[layer + ".g"]}[kind] for s in self.sets]

    def scores(self, layers, kind, rule):
        """The mean over all neurons of the layers, for each set."""
        covers = []
        for l in layers:
            x = self.states(l, kind)
            covers.append([rule(x[0])(y) for y in x])
        return [np.concatenate(c, 1).mean(1) for c in zip(*covers)]


def result(scores):
    a = [auroc(scores[1], s) for s in scores[2:]]
    return f"{a[0]:5.1f} /{np.mean(a[1:]):5.1f}"


def standardised(*parts):
    return [sum((s - p[0].mean()) / p[0].std() for s, p in zip(row, parts)) for row in zip(*parts)]


def ranked(*parts):
    return [sum(np.searchsorted(np.sort(p[0]), s) for s, p in zip(row, parts)) for row in zip(*parts)]


def main(folders):
    networks = [Network(f) for f in folders]

    def line(name, scores):
        print(f"{name:52}", "   ".join(result(scores(n)) for n in networks), flush=True)

    rules = {
        "1/std of the layer": lambda x: Sigmoid(x, x.std()),
        "1/std, O 1 %": lambda x: Sigmoid(x, x.std(), o=1),
        "1/std, O 10 %": lambda x: Sigmoid(x, x.std(), o=10),
        "1/std, M 20": lambda x: Sigmoid(x, x.std(), m=20),
        "1/std, M 100": lambda x: Sigmoid(x, x.std(), m=100),
        "0.5/std": lambda x: Sigmoid(x, 2 * x.std()),
        "2/std": lambda x: Sigmoid(x, x.std() / 2),
        "1/std of each neuron": lambda x: Sigmoid(x, x.std(0)),
        "each neuron, about its median, by its 68 %": lambda x: Sigmoid(
            x, np.subtract(*np.percentile(x, [84, 16], axis=0)) / 2 + 1e-12, centre=np.median(x, 0)),
        "tails, O 1 %": lambda x: Tails(x, 1),
        "tails, O 3 %": lambda x: Tails(x, 3),
        "tails, O 10 %": lambda x: Tails(x, 10),
        "ranks (equal mass): tails, O 50 %": lambda x: Tails(x, 50),
    }
    for kind in ["z*g", "z", "g"]:
        for name, rule in rules.items():
            line(f"{kind}, all layers: {name}", lambda n: n.scores(LAYERS, kind, rule))
    for layer in LAYERS:
        line(f"z*g, {layer}: 1/std", lambda n: n.scores([layer], "z*g", rules["1/std of the layer"]))
        line(f"z, {layer}: tails, O 3 %", lambda n: n.scores([layer], "z", rules["tails, O 3 %"]))

    def parts(n):
        return n.scores(["avgpool"], "z*g", rules["1/std of the layer"]), n.scores(LAYERS[1:], "z", rules["tails, O 3 %"])

    line("nac_auto: both standardised and added", lambda n: standardised(*parts(n)))
    line("the same by ranks", lambda n: ranked(*parts(n)))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
