"""Numbers of domain generalisation's reference that package dg's tests compare with: dg/testdata/reference.safetensors.

usage: dg.py CHECKOUT        the reference, BierOne/ood_coverage

The algorithms and the registry of hyperparameters of the checkout are run as they are; what it does not
ship is stood in for. Run it from the repository's root.
"""
import hashlib
import json
import struct
import sys
import types

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms as T
from torchvision.transforms.functional import rotate

DOMAINS, EACH, CLASSES, WIDTH = 3, 7, 4, 5


def module(name, path=None, **names):
    m = types.ModuleType(name)
    m.__dict__.update(names)
    sys.modules[name] = m
    if path:
        exec(compile(open(path).read(), path, "exec"), m.__dict__)
    return m


def reference(checkout):
    base = checkout + "/domainbed/domainbed/"
    torch.Tensor.cuda = lambda self, *a, **k: self
    package = module("domainbed")
    package.__path__ = []
    package.networks = module("domainbed.networks")
    lib = module("domainbed.lib")
    lib.__path__ = []
    pairs = {}
    module("domainbed.lib.misc", random_pairs_of_minibatches=lambda m: [(m[i], m[j]) for i, j in pairs["of"]])
    module("domainbed.optimizers", base + "optimizers.py")
    module("domainbed.models").__path__ = []
    for n, names in {"resnet_mixstyle": "mixstyle", "resnet_mixstyle2": "mixstyle2"}.items():
        module("domainbed.models." + n, **{f"resnet{d}_{names}_L234_p0d5_a0d1": None for d in (18, 50)})
    return module("domainbed.algorithms", base + "algorithms/algorithms.py"), module("hparams", base + "hparams_registry.py"), pairs


class Idle:
    def zero_grad(self): pass

    def step(self): pass


def algorithms(ref, pairs, out, meta):
    torch.set_default_dtype(torch.float64)
    generator = torch.Generator().manual_seed(1)
    draw = lambda *s: torch.randn(*s, generator=generator).float().double()
    logits, features = draw(DOMAINS * EACH, CLASSES) * 2, draw(DOMAINS * EACH, WIDTH) * 0.3
    features += torch.arange(DOMAINS).repeat_interleave(EACH)[:, None] * 0.2
    features = features.float().double()
    weight = draw(CLASSES, WIDTH)
    labels = torch.randint(0, CLASSES, (DOMAINS * EACH,), generator=generator)
    out["logits"], out["features"], out["weight"], out["labels"] = logits, features, weight, labels
    split = lambda t: [c.clone().requires_grad_(t.is_floating_point()) for c in t.chunk(DOMAINS)]
    hparams = {"irm_lambda": 100.0, "irm_penalty_anneal_iters": 500, "vrex_lambda": 10.0, "vrex_penalty_anneal_iters": 500,
               "groupdro_eta": 0.01, "mmd_gamma": 0.7, "mixup_alpha": 0.2, "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}
    shares = iter([0.3, 0.9, 0.05])
    np.random.beta = lambda a, b: next(shares)
    pairs["of"] = [(1, 2), (2, 0), (0, 1)]
    for name, count in [("ERM", 0), ("IRM", 0), ("IRM", 600), ("VREx", 0), ("VREx", 600), ("GroupDRO", 0), ("GroupDRO", 1), ("Mixup", 0), ("CORAL", 0), ("MMD", 0)]:
        a = getattr(ref, name).__new__(getattr(ref, name))
        nn.Module.__init__(a)
        a.hparams, a.optimizer, a.network = hparams, Idle(), nn.Identity()
        a.register_buffer("update_count", torch.tensor([count]))
        aligned = name in ("CORAL", "MMD")
        if aligned:
            a.kernel_type = "gaussian" if name == "MMD" else "mean_cov"
            a.featurizer, a.classifier = nn.Identity(), nn.Linear(WIDTH, CLASSES, bias=False)
            a.classifier.weight.data.copy_(weight)
        if name == "GroupDRO":
            a.register_buffer("q", torch.tensor([0.2, 0.5, 0.3]) if count else torch.Tensor())
        x = split(features if aligned else logits)
        parts = a.update(x, split(labels))
        tag = f"{name}.{count}"
        out[tag + ".grad"] = torch.cat([c.grad for c in x])
        total = parts["loss"] + (hparams["mmd_gamma"] * parts["penalty"] if aligned else 0)
        meta[tag] = json.dumps({"loss": total, **({"q": a.q.tolist()} if name == "GroupDRO" else {})})
    torch.set_default_dtype(torch.float32)


def registry(hparams, meta):
    for algorithm in ("ERM", "Mixup", "CORAL", "MMD", "IRM", "VREx", "GroupDRO"):
        for dataset in ("RotatedMNIST", "ColoredMNIST", "PACS", "DomainNet"):
            for seed in (None, 0, 1, 12345):
                h = hparams.default_hparams(algorithm, dataset) if seed is None else hparams.random_hparams(algorithm, dataset, seed)
                h = {k: v.item() if hasattr(v, "item") else v for k, v in h.items() if k not in ("data_augmentation", "val_augment", "resnet18", "pretrained")}
                meta[f"hparams.{algorithm}.{dataset}.{'default' if seed is None else seed}"] = json.dumps(h)


def digits(out):
    """DomainBed's RotatedMNIST and ColoredMNIST of few made digits."""
    n = 120
    images = np.zeros((n, 28, 28), np.uint8)
    r = np.random.RandomState(5)
    for i in range(n):
        y, x = r.randint(2, 18, 2)
        images[i, y:y + r.randint(4, 10), x:x + r.randint(2, 9)] = r.randint(100, 256)
        images[i] = np.where(r.rand(28, 28) < 0.1, r.randint(0, 256, (28, 28)), images[i])
    labels = (np.arange(n) * 7 % 10).astype(np.uint8)
    out["digits.images"], out["digits.labels"] = images, labels
    for seed in (0, 3):
        torch.manual_seed(seed)
        shuffle = torch.randperm(n)
        x, y = torch.from_numpy(images)[shuffle], torch.from_numpy(labels).long()[shuffle]
        for i, angle in enumerate([0, 15, 30, 45, 60, 75]):
            f = T.Compose([T.ToPILImage(), T.Lambda(lambda p: rotate(p, angle, fill=(0,), interpolation=T.InterpolationMode.BICUBIC)), T.ToTensor()])
            out[f"rotated.{seed}.{i}.x"] = (torch.stack([f(p) for p in x[i::6]]) * 255).round().byte()
            out[f"rotated.{seed}.{i}.y"] = y[i::6].byte()
        torch.manual_seed(seed)
        shuffle = torch.randperm(n)
        x, y = torch.from_numpy(images)[shuffle], torch.from_numpy(labels).long()[shuffle]
        for i, e in enumerate([0.1, 0.2, 0.9]):
            bernoulli = lambda p, size: (torch.rand(size) < p).float()
            xi, yi = x[i::3], (y[i::3] < 5).float()
            yi = (yi - bernoulli(0.25, len(yi))).abs()
            colours = (yi - bernoulli(e, len(yi))).abs()
            xi = torch.stack([xi, xi], 1)
            xi[torch.arange(len(xi)), (1 - colours).long()] *= 0
            out[f"colored.{seed}.{i}.x"], out[f"colored.{seed}.{i}.y"] = xi, yi.byte()


def splits(meta):
    for trial, domain, n in [(0, 0, 11667), (0, 1, 100), (2, 3, 57), (1, 5, 5)]:
        seed = int(hashlib.md5(str((trial, domain)).encode()).hexdigest(), 16) % 2**31
        keys = list(range(n))
        np.random.RandomState(seed).shuffle(keys)
        k = int(n * 0.2)
        meta[f"split.{trial}.{domain}.{n}"] = json.dumps({"seed": seed, "out": keys[:k][:9], "in": keys[k:][:9], "sizes": [len(keys) - k, k]})


def main():
    ref, hparams, pairs = reference(sys.argv[1])
    out, meta = {}, {}
    algorithms(ref, pairs, out, meta)
    registry(hparams, meta)
    digits(out)
    splits(meta)
    kinds = {"float32": "F32", "uint8": "U8"}
    header, data = {"__metadata__": meta}, b""
    for name, t in sorted(out.items()):
        t = t.detach().numpy() if torch.is_tensor(t) else t
        if t.dtype == np.int64:
            t = t.astype(np.uint8)
        if t.dtype == np.float64:
            t = t.astype(np.float32)
        raw = np.ascontiguousarray(t).tobytes()
        header[name] = {"dtype": kinds[str(t.dtype)], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open("dg/testdata/reference.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


main()
