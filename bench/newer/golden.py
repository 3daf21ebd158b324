"""Scores of OpenOOD's own classes on made features, for detector/testdata/newer.json.

    python bench/newer/golden.py OPENOOD > detector/testdata/newer.json

OPENOOD is a checkout of Jingkang50/OpenOOD. Needs torch, numpy, scipy. Images are
row numbers, and the network looks up their features. What the classes import but the
formula does not need is replaced: faiss by exact inner products, progress bars and
the GPU by nothing. Only numbers are kept.
"""
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

K, F = 10, 64
SIZES = {"train": 300, "val": 80, "test": 40}
M64 = (1 << 64) - 1


def fill(name, n):
    """Numbers in [-1, 1), of a tensor's name and the flat index alone."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & M64
    out = []
    for i in range(n):
        z = (h + i + 1) * 0x9E3779B97F4A7C15 & M64
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M64
        z ^= z >> 31
        out.append(2 * ((z >> 40) / 2**24) - 1)
    return np.array(out)


def made():
    proto = fill("newer.proto", K * F).reshape(K, F)
    weight = (proto + 0.5 * fill("newer.weight", K * F).reshape(K, F)).astype(np.float32) * np.float32(0.25)
    bias = (0.1 * fill("newer.bias", K)).astype(np.float32)
    sets = {}
    for name, n in SIZES.items():
        noise = fill(f"newer.{name}", n * F).reshape(n, F)
        label = np.arange(n) % K
        centre = proto[label].copy()
        if name == "test":  # the second half belongs to no class
            centre[n // 2:] = fill("newer.novel", (n - n // 2) * F).reshape(-1, F)
        feature = np.maximum(centre + 0.75 * noise, 0).astype(np.float32)
        logits = (feature.astype(np.float64) @ weight.astype(np.float64).T + bias).astype(np.float32)
        sets[name] = (feature, logits, label)
    return weight, bias, sets


class Net(torch.nn.Module):
    """A network whose images are row numbers of one of the sets."""

    def __init__(self, weight, bias, sets):
        super().__init__()
        self.fc = torch.nn.Linear(F, K)
        self.fc.weight.data, self.fc.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        self.sets, self.split = sets, "train"

    def forward(self, data, return_feature=False):
        feature, logits, _ = self.sets[self.split]
        i = data.long().flatten().numpy()
        f, l = torch.from_numpy(feature[i].copy()), torch.from_numpy(logits[i].copy())
        return (l, f) if return_feature else l


class Loader(list):
    """Batches of row numbers; tells the network which set they are of."""

    def __init__(self, net, split, size):
        n = SIZES[split]
        super().__init__({"data": torch.arange(i, min(i + size, n)), "label": None} for i in range(0, n, size))
        self.net, self.split, self.batch_size, self.dataset = net, split, size, range(n)

    def __iter__(self):
        self.net.split = self.split
        return super().__iter__()


class ExactIP:
    def __init__(self, width):
        pass

    def add(self, bank):
        self.bank = bank

    def search(self, queries, k):
        products = queries @ self.bank.T
        at = np.argsort(-products, axis=1)[:, :k]
        return np.take_along_axis(products, at, 1), at


def classes(checkout):
    sys.modules["faiss"] = types.SimpleNamespace(IndexFlatIP=ExactIP)
    sys.modules["tqdm"] = types.SimpleNamespace(tqdm=lambda it, **_: it)
    torch.Tensor.cuda = lambda self, *_, **__: self
    package = types.ModuleType("postprocessors")
    package.__path__ = [str(Path(checkout) / "openood/postprocessors")]
    sys.modules["postprocessors"] = package
    base = types.ModuleType("postprocessors.base_postprocessor")

    class BasePostprocessor:
        def __init__(self, config):
            self.config = config

    base.BasePostprocessor = BasePostprocessor
    sys.modules[base.__name__] = base

    def load(path, name):
        spec = importlib.util.spec_from_file_location(name, Path(checkout) / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def postprocessor(key):
        m = load(f"openood/postprocessors/{key}_postprocessor.py", f"postprocessors.{key}_postprocessor")
        return next(v for n, v in vars(m).items() if n.lower() == key + "postprocessor")

    return postprocessor, load("openood/networks/scale_net.py", "scale_net"), load("openood/networks/adascale_net.py", "adascale_net")


def config(**args):
    return types.SimpleNamespace(postprocessor=types.SimpleNamespace(
        postprocessor_args=types.SimpleNamespace(**args), postprocessor_sweep=None))


def main(checkout):
    weight, bias, sets = made()
    net = Net(weight, bias, sets)
    net.eval()
    postprocessor, scale_net, _ = classes(checkout)
    loaders = {"train": Loader(net, "train", 50), "val": Loader(net, "val", 50)}
    scores = {}

    def run(name, key, **args):
        p = postprocessor(key)(config(**args))
        if hasattr(p, "setup"):
            p.setup(net, loaders, None)
        net.split = "test"
        conf = [p.postprocess(net, torch.arange(i, i + 20))[1] for i in (0, 20)]
        scores[name] = [float(c) for c in torch.cat(conf)]

    def forward_threshold(data, percentile):
        _, f = net(data, return_feature=True)
        return net.fc(scale_net.scale(f.view(len(f), -1, 1, 1), percentile).view(len(f), -1))

    net.forward_threshold = forward_threshold
    run("scale", "scale", percentile=85)
    run("scale percentile=65", "scale", percentile=65)
    run("nnguide alpha=1", "nnguide", K=100, alpha=1)
    run("nnguide alpha=1 K=10", "nnguide", K=10, alpha=1)
    run("fdbd", "fdbd", distance_as_normalizer=True)
    run("fdbd distance_as_normalizer=0", "fdbd", distance_as_normalizer=False)
    run("vra", "vra", percentile_high=90, percentile_low=10)
    run("vra percentile_high=85 percentile_low=60", "vra", percentile_high=85, percentile_low=60)
    run("relation", "relation", pow=1)
    run("relation pow=4", "relation", pow=4)
    run("nci", "nci", alpha=0.0001)
    run("nci alpha=0.1", "nci", alpha=0.1)
    p = torch.softmax(torch.from_numpy(sets["test"][1]).double(), 1)
    scores["entropy"] = [-float(v) for v in torch.distributions.Categorical(p).entropy()]
    out = {"check": {k: [float(v[0].sum(dtype=np.float64)), float(v[1].sum(dtype=np.float64))] for k, v in sets.items()}, "scores": scores}
    print(json.dumps(out, indent=0))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with torch.no_grad():
        main(sys.argv[1])
