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
    lib = module("domainbed.lib")
    lib.__path__ = []
    lib.wide_resnet = module("domainbed.lib.wide_resnet")
    module("domainbed.networks.backbones", get_backbone=None)
    package.networks = module("domainbed.networks", base + "networks/networks.py")
    full = torch.full
    torch.full = lambda *a, device=None, **k: full(*a, **k)
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


def fill(name, shape, low, high):
    """The rule by which the tests fill tensors; see golden.py."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & ((1 << 64) - 1)
    z = (np.uint64(h) + np.arange(int(np.prod(shape)), dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((low + (high - low) * (z >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32).reshape(shape)).double()


class LeNet(nn.Module):
    n_outputs = 84

    def __init__(self):
        super().__init__()
        self.block1, self.block2, self.block3 = [nn.Sequential(nn.Conv2d(i, o, 5, padding=p), nn.ReLU()) for i, o, p in ((1, 6, 2), (6, 16, 0), (16, 120, 0))]
        self.classifier1 = nn.Linear(120, 84)

    def forward(self, x):
        x = torch.max_pool2d(self.block2(torch.max_pool2d(self.block1(x), 2)), 2)
        return self.classifier1(self.block3(x).flatten(1)).relu()


def trajectories(ref, images, labels, out, meta):
    """A few whole steps of the reference's algorithms as they are, in float64. The network is LeNet with made weights:
    MNIST_CNN has so many ReLUs that some lie at 0, where float32 goes another way."""
    torch.set_default_dtype(torch.float64)
    n, domains = 3, 2
    x = torch.from_numpy(images[:n * domains]).double()[:, None] / 255
    y = torch.from_numpy(labels[:n * domains]).long()
    base = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-4, "mmd_gamma": 0.7, "irm_lambda": 10.0, "irm_penalty_anneal_iters": 2,
            "lr_g": 2e-3, "lr_d": 5e-3, "weight_decay_g": 1e-4, "weight_decay_d": 1e-3, "lambda": 0.5, "d_steps_per_g_step": 2,
            "grad_penalty": 0.0, "beta1": 0.5, "mlp_width": 8, "mlp_depth": 3, "mlp_dropout": 0.0, "sag_w_adv": 0.3}
    ref.networks.Featurizer = lambda *a: LeNet()
    names = {"featurizer": "", "classifier": "fc.", "network_f": "", "network_c": "fc.", "network_s": "style.",
             "discriminator.input": "discriminator.0.", "discriminator.hiddens.0": "discriminator.1.", "discriminator.output": "discriminator.2."}
    for name in ("ERM", "CORAL", "IRM", "DANN", "SagNet"):
        a = getattr(ref, name)((1, 28, 28), 10, domains, base)
        parts = [(names[k], v) for k, v in {**dict(a.named_children()), **{"discriminator." + k: v for k, v in getattr(a, "discriminator", nn.Module()).named_modules()}}.items() if k in names]
        for prefix, part in parts:
            for k, p in part.named_parameters():
                bound = 0.1 if p.ndim == 1 else 1.5 * (3 / p[0].numel()) ** 0.5
                p.data = fill(prefix + k, p.shape, -bound, bound)
        # SagNet's draws: alpha evenly spread, rows turned round by 1, 2, ...
        draws = iter(range(1, 100))
        torch.rand = lambda rows, one: torch.arange(rows).double()[:, None] / rows
        torch.randperm = lambda rows: torch.arange(rows).roll(next(draws))
        a.train()
        steps = [a.update(list(x.chunk(domains)), list(y.chunk(domains))) for _ in range(5)]
        meta["trajectory." + name] = json.dumps({"hparams": base, "steps": steps})
        with torch.no_grad():
            out[f"trajectory.{name}.logits"] = a.predict(x)
        last = getattr(a, "discriminator", None) or getattr(a, "network_s", None)
        if last is not None:
            out[f"trajectory.{name}.own"] = torch.cat([p.flatten() for p in last.parameters()])
    torch.set_default_dtype(torch.float32)


def valleys(checkout, out, meta):
    """SWAD's LossValley over made losses, its network a vector of three numbers."""
    base = checkout + "/domainbed/domainbed/"
    module("domainbed.networks.ur_networks", URResNet=type("URResNet", (), {}))
    package = module("domainbed.swad")
    package.__path__ = []
    package.swa_utils = module("domainbed.swad.swa_utils", base + "swad/swa_utils.py")
    swad = module("domainbed.swad.swad", base + "swad/swad.py")
    torch.nn.Module.cuda = lambda self, *a, **k: self
    r = np.random.RandomState(3)
    every, cases = 4, []
    fall = [3, 2, 1.5, 1.2, 1.0, 0.9, 0.85, 0.8, 0.82, 0.81, 0.83, 0.8, 0.84, 0.9, 0.95]
    cases += [(3, 6, 0.3, fall), (3, 6, 0.3, fall + [1.2] * 9), (3, 3, 0.3, fall), (5, 2, 0.3, fall), (3, 6, 0.3, [5 - 0.1 * i for i in range(9)]), (2, 4, 0.05, [1.0, 1.1, 1.0, 2.0, 2.0, 2.0, 2.0, 0.5])]
    for i in range(40):
        c, t = r.randint(1, 6), r.randint(1, 8)
        cases.append((int(c), int(t), float(r.choice([0.0, 0.1, 0.3])), (np.exp(-np.arange(25) / 5) + 0.3 + 0.15 * r.rand(25)).round(3).tolist()))
    done = []
    for c, t, ratio, losses in cases:
        evaluator = types.SimpleNamespace(logger=types.SimpleNamespace(error=lambda *a: None))
        valley = swad.LossValley(evaluator, c, t, ratio)
        net = nn.Linear(3, 1, bias=False)
        segment, dead = package.swa_utils.AveragedModel(net), -1
        for step in range((len(losses) - 1) * every + 1):
            # Whole numbers and their halves: means differ clearly, roundings do not.
            net.weight.data = torch.tensor([[float(step), float(step * step % 101), float(step % 7)]])
            if dead < 0:
                segment.update_parameters(net, step=step)
            if step % every == 0 and dead < 0:
                valley.update_and_evaluate(segment, 0, losses[step // every], None)
                if valley.dead_valley:
                    dead = step
                segment = package.swa_utils.AveragedModel(net)
        final = valley.get_final_model()
        done.append({"n_converge": c, "n_tolerance": t, "tolerance_ratio": ratio, "losses": losses, "dead": dead, "converged": -1 if valley.converge_step is None else valley.converge_step,
                     "start": final.start_step, "end": final.end_step, "count": int(final.n_averaged), "weights": final.module.weight.flatten().tolist()})
    meta["swad"] = json.dumps({"every": every, "cases": done})


def registry(hparams, meta):
    for algorithm in ("ERM", "Mixup", "CORAL", "MMD", "IRM", "VREx", "GroupDRO", "DANN", "SagNet"):
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
    trajectories(ref, out["digits.images"], out["digits.labels"], out, meta)
    valleys(sys.argv[1], out, meta)
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
