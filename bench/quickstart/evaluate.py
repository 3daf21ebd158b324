"""Runs the quickstart's job in PyTorch: the numbers that nac must reproduce.

    python evaluate.py --archive ../../quickstart/quickstart.zip --out pytorch.json

Scores: higher = more in-distribution. FPR@95 has OOD as the positive class, as
OpenOOD computes it. AUPR-In: ID positive; AUPR-Out: OOD positive.
"""

import argparse
import io
import json
import zipfile

import numpy as np
import PIL
import sklearn
import torch
from PIL import Image
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve
from torch.nn import functional as F

from network import load_checkpoint

CHECKPOINT = "checkpoints/fashion_resnet20.safetensors"
LISTS = "benchmark_imglist/fashion/"
LAYERS = ["avgpool", "layer3", "layer2", "layer1"]
THRESHOLDS = 50  # M
MIN_SHARE = 0.03  # O as a share of the training images


def read_list(archive, name):
    """The images as uint8 [N,3,32,32] after Resize(32), and the labels."""
    images, labels = [], []
    for line in archive.read(f"{LISTS}{name}.txt").decode().splitlines():
        path, label = line.rsplit(" ", 1)
        image = Image.open(io.BytesIO(archive.read("images_classic/" + path))).convert("RGB")
        images.append(np.asarray(image.resize((32, 32), Image.BILINEAR)).transpose(2, 0, 1))
        labels.append(int(label))
    return np.stack(images), np.array(labels)


def run(network, images, mean, std):
    """Logits, and per layer the product of the pooled activations and the pooled gradients.

    The gradient is that of the cross-entropy against the uniform distribution
    (KL(uniform || softmax) up to a constant), summed over the batch. Both are
    sums over height and width. In float64: two builds of PyTorch in float32 differ from
    each other where a ReLU's input is within rounding of 0.
    """
    logits, states = [], {name: [] for name in LAYERS}
    outputs = {}
    hooks = [
        getattr(network, name).register_forward_hook(
            lambda module, args, out, name=name: outputs.__setitem__(name, out)
        )
        for name in LAYERS
    ]
    for i in range(0, len(images), 100):
        x = (torch.from_numpy(images[i : i + 100]).double() / 255 - mean) / std
        out = network(x)
        loss = -F.log_softmax(out, 1).mean(1).sum()
        gradients = torch.autograd.grad(loss, [outputs[name] for name in LAYERS])
        for name, gradient in zip(LAYERS, gradients):
            z = outputs[name].detach().sum((2, 3))
            states[name].append((z * gradient.sum((2, 3))).numpy())
        logits.append(out.detach().numpy())
    for hook in hooks:
        hook.remove()
    return np.concatenate(logits), {name: np.concatenate(s) for name, s in states.items()}


def thresholds(m):
    """The reference's M thresholds: dense about 0.5, M even."""
    half = m // 2
    low = np.log(np.linspace(1, np.sqrt(1000), half)) / np.log(1000)
    rising = np.concatenate([low[:-1], 1 - low[::-1]])
    rising[-1] += 0.01
    return np.append(rising, 1.2)


def bins(product, alpha):
    """The bin of each state sigmoid(alpha*z*g); M-1 where it has none."""
    state = (1 / (1 + torch.exp(-alpha * torch.from_numpy(product)))).numpy()
    index = np.searchsorted(thresholds(THRESHOLDS), state.astype(np.float64), "right") - 1
    return np.where((index < 0) | (index >= THRESHOLDS - 1), THRESHOLDS - 1, index)


def coverage(product, alpha, minimum):
    """Per neuron and bin, min(count/O, 1); one more bin, always 0, for states without one."""
    table = np.zeros((product.shape[1], THRESHOLDS))
    for row in bins(product, alpha):
        table[np.arange(len(row)), row] += 1
    table[:, -1] = 0
    return np.minimum(table / minimum, 1)


def nac(states, tables, alphas, layers):
    per_layer = []
    for name in layers:
        index = bins(states[name], alphas[name])
        per_layer.append(tables[name][np.arange(index.shape[1]), index].mean(1))
    return np.mean(per_layer, axis=0)


def metrics(inside, outside):
    label = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    score = np.concatenate([inside, outside])
    fpr, tpr, _ = roc_curve(label, -score)
    p_in, r_in, _ = precision_recall_curve(1 - label, score)
    p_out, r_out, _ = precision_recall_curve(label, -score)
    return {
        "fpr95": float(fpr[np.argmax(tpr >= 0.95)]),
        "auroc": float(auc(fpr, tpr)),
        "aupr_in": float(auc(r_in, p_in)),
        "aupr_out": float(auc(r_out, p_out)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", required=True)
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)

    archive = zipfile.ZipFile(args.archive)
    network, metadata = load_checkpoint(archive.read(CHECKPOINT))
    network.double()
    mean, std = float(metadata["mean"]), float(metadata["std"])
    names = sorted(
        n[len(LISTS) : -len(".txt")] for n in archive.namelist() if n.startswith(LISTS)
    )
    logits, states, accuracy = {}, {}, {}
    for name in names:
        images, labels = read_list(archive, name)
        logits[name], states[name] = run(network, images, mean, std)
        if labels.min() >= 0:
            accuracy[name] = float((logits[name].argmax(1) == labels).mean())

    # The rule takes nothing but ID training images: alpha makes the typical
    # state z*g one unit wide before the sigmoid, O is a share of the images.
    train = states["main_train_fashion"]
    minimum = round(MIN_SHARE * len(logits["main_train_fashion"]))
    alphas = {name: float(1 / train[name].astype(np.float64).std()) for name in LAYERS}
    tables = {name: coverage(train[name], alphas[name], minimum) for name in LAYERS}

    def score(name):
        x = logits[name].astype(np.float64)
        top = x.max(1)
        energy = top + np.log(np.exp(x - top[:, None]).sum(1))
        return {
            "nac": nac(states[name], tables, alphas, LAYERS),
            "nac[avgpool]": nac(states[name], tables, alphas, ["avgpool"]),
            "msp": np.exp(top - energy),
            "mls": top,
            "ebo": energy,
        }

    scores = {name: score(name) for name in names}
    detectors = list(scores[names[0]])
    inside = scores["test_fashion"]
    result = {
        "made_with": {
            "torch": torch.__version__,
            "pillow": PIL.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "accuracy": accuracy,
        "nac": {"layers": LAYERS, "M": THRESHOLDS, "O": minimum, "alpha": alphas},
        "sub_train_auroc": {
            d: float(
                roc_auc_score(
                    [0] * len(scores["val_fashion"][d]) + [1] * len(scores["sub_train_fashion"][d]),
                    -np.concatenate([scores["val_fashion"][d], scores["sub_train_fashion"][d]]),
                )
            )
            for d in detectors
        },
        "results": {
            d: {
                name: metrics(inside[d], scores[name][d])
                for name in ("test_bag", "test_ankle_boot", "test_mnist")
            }
            for d in detectors
        },
        # The first images of each list: enough to find where two programs part.
        "logits": {
            name: [[float(f"{v:.7g}") for v in row] for row in logits[name][:5]] for name in names
        },
        "scores": {
            d: {name: [float(f"{v:.7g}") for v in scores[name][d][:25]] for name in names}
            for d in detectors
        },
    }
    for name, value in accuracy.items():
        print(f"accuracy {name}: {value:.2%}")
    print(f"M {THRESHOLDS}, O {minimum}, alpha", {k: round(v, 6) for k, v in alphas.items()})
    for d in detectors:
        row = result["results"][d]
        cells = [f"{s[5:]} {r['auroc']:.2%} (FPR {r['fpr95']:.2%})" for s, r in row.items()]
        near = np.mean([row["test_bag"]["auroc"], row["test_ankle_boot"]["auroc"]])
        print(
            f"{d:13}", *cells, f"near {near:.2%}", f"sub_train {result['sub_train_auroc'][d]:.2%}", sep="  "
        )
    if args.out:
        with open(args.out, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
