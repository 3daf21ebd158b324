"""NAC's table and parameter sweep of a real CIFAR ResNet in PyTorch's float64: what rounding is not part of.

    python float64.py --data DIR --checkpoint resnet20-12fca82f.th --blocks 3 --out float64_resnet20.json

DIR is laid out as OpenOOD does (benchmark_imglist/cifar10, images_classic). The settings
are those published for CIFAR-10; the fit is on main_train_cifar10. About 15 minutes on a core.
FPR@95 has OOD as the positive class, as OpenOOD computes it. The sweep has the AUROC of val_cifar10
against val_tin for the 256 published combinations, in the reference's order: avgpool's O varies fastest.
All figures in percent.
"""

import argparse
import itertools
import json
import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import auc, roc_curve
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "quickstart"))
from network import Block, ResNet20  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SETTINGS = {  # layer: M, O, alpha
    "avgpool": (50, 50, 100),
    "layer3": (500, 100, 1000),
    "layer2": (50, 5, 0.001),
    "layer1": (500, 100, 0.001),
}
SWEEP = {  # layer: values of O, of M, of alpha; within a layer O varies fastest
    "avgpool": ((10, 50), (50,), (100,)),
    "layer3": ((100,), (50, 500), (1000, 5000)),
    "layer2": ((5, 10), (50,), (0.001,)),
    "layer1": ((5, 10, 50, 100), (50, 500), (0.001, 0.005)),
}


class ResNet(ResNet20):
    """A CIFAR ResNet of 6*blocks+2 layers."""

    def __init__(self, blocks):
        super().__init__(10)
        for name, inputs, outputs, stride in (("layer1", 16, 16, 1), ("layer2", 16, 32, 2), ("layer3", 32, 64, 2)):
            first = Block(inputs, outputs, stride)
            setattr(self, name, nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1))))


def read(data, name):
    images = []
    for line in (data / f"benchmark_imglist/cifar10/{name}.txt").read_text().splitlines():
        image = Image.open(data / "images_classic" / line.rsplit(" ", 1)[0]).convert("RGB")
        w, h = image.size
        if (w, h) != (32, 32):
            w, h = (32, int(32 * h / w)) if w <= h else (int(32 * w / h), 32)
            left, top = round((w - 32) / 2), round((h - 32) / 2)
            image = image.resize((w, h), Image.BILINEAR).crop((left, top, left + 32, top + 32))
        images.append(np.asarray(image).transpose(2, 0, 1))
    return np.stack(images)


def products(network, images):
    """Per layer the product of the pooled activations and the pooled gradients."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    kept, outputs = {name: [] for name in SETTINGS}, {}
    hooks = [
        getattr(network, name).register_forward_hook(lambda m, a, out, name=name: outputs.__setitem__(name, out))
        for name in SETTINGS
    ]
    for i in range(0, len(images), 128):
        logits = network((torch.from_numpy(images[i : i + 128]).double() / 255 - mean) / std)
        loss = -F.log_softmax(logits, 1).mean(1).sum()
        for name, g in zip(SETTINGS, torch.autograd.grad(loss, [outputs[name] for name in SETTINGS])):
            kept[name].append((outputs[name].detach().sum((2, 3)) * g.sum((2, 3))).numpy())
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(v) for name, v in kept.items()}


def bins(product, m, alpha):
    half = m // 2
    low = np.log(np.linspace(1, np.sqrt(1000), half)) / np.log(1000)
    edges = np.concatenate([low[:-1], 1 - low[::-1]])
    edges[-1] += 0.01
    index = np.searchsorted(np.append(edges, 1.2), torch.sigmoid(alpha * torch.from_numpy(product)).numpy(), "right") - 1
    return np.where((index < 0) | (index >= m - 1), m - 1, index)


def fit(product, m, o, alpha):
    """The coverage of each neuron's bins, [neuron][bin]; the last column is for states in no bin."""
    table = np.zeros((product.shape[1], m))
    for row in bins(product, m, alpha):
        table[np.arange(len(row)), row] += 1
    table[:, -1] = 0
    return np.minimum(table / o, 1)


def score(table, product, m, alpha):
    return table[np.arange(product.shape[1]), bins(product, m, alpha)].mean(1)


def fpr_auroc(inside, outside):
    """FPR@95, AUROC, and FPR@95 if the OOD image that it is read at were the one before or the one behind in order of scores."""
    labels = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    fpr, tpr, _ = roc_curve(labels, -np.concatenate([inside, outside]), drop_intermediate=False)
    at = [fpr[np.argmax(tpr >= 0.95 + one / len(outside) - 1e-9)] for one in (0, -1, 1)]
    return [round(100 * float(v), 3) for v in (at[0], auc(fpr, tpr), at[1], at[2])]


def sweep(train, inside, outside):
    """The AUROCs of all combinations: a layer is scored once with each of its settings."""
    scores = []
    for layer, choices in SWEEP.items():
        scores.append([])
        for alpha, m, o in itertools.product(*reversed(choices)):
            table = fit(train[layer], m, o, alpha)
            scores[-1].append([score(table, states[layer], m, alpha) for states in (inside, outside)])
    return [fpr_auroc(*(sum(s) / len(SWEEP) for s in zip(*c)))[1] for c in (c[::-1] for c in itertools.product(*scores[::-1]))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--blocks", type=int, default=3, help="of a stage: 3 for ResNet-20, 5 for ResNet-32")
    parser.add_argument("--sets", default="texture,mnist,tin", help="OOD sets, in this order; the file is written after each")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)

    weights = torch.load(args.checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    network = ResNet(args.blocks)
    network.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    network.eval().double()

    train = products(network, read(args.data, "main_train_cifar10"))
    val = [products(network, read(args.data, name)) for name in ("val_cifar10", "val_tin")]
    result = {"columns": ["FPR@95", "AUROC", "FPR@95, an image less", "an image more"], "nac": {}, "sweep": sweep(train, *val)}

    tables = {k: fit(train[k], m, o, alpha) for k, (m, o, alpha) in SETTINGS.items()}

    def scores(name):
        states = products(network, read(args.data, name))
        return np.mean([score(tables[k], states[k], m, alpha) for k, (m, o, alpha) in SETTINGS.items()], axis=0)

    inside = scores("test_cifar10")
    for name in args.sets.split(","):
        result["nac"][name] = fpr_auroc(inside, scores("test_" + name))
        pathlib.Path(args.out).write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
