"""Coverage numbers of NAC-ME's reference: on made states, coverage/testdata/nacme.safetensors, and of a network,
dg/testdata/coverage.safetensors.

usage: nacme.py CHECKOUT                     the reference, BierOne/ood_coverage
       nacme.py CHECKOUT CHECKPOINT MNIST N  prints the coverage of a mnist_cnn of "nac dg train --dataset ColoredMNIST
                                             --seed 0 --test-domain=-90% --eval-images N"; MNIST holds the idx.gz files

The checkout's code is run as it is; what it imports besides is stood in for. Run it from the repository's root.
"""
import gzip
import hashlib
import json
import struct
import sys
import types

import numpy as np
import torch
from torch import nn


def module(name, path, **names):
    m = types.ModuleType(name)
    m.__dict__.update(names)
    sys.modules[name] = m
    if path:
        exec(compile(open(path).read(), path, "exec"), m.__dict__)
    return m


def reference(checkout):
    base = checkout + "/domainbed/"
    notes = base + "benchmark_notes/"
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *a, **k: self
    package = module("benchmark_notes", None)
    utils = module("benchmark_notes.utils", notes + "utils.py")
    package.nethook = module("benchmark_notes.nethook", notes + "nethook.py")
    domainbed = module("domainbed", None, algorithms=None, datasets=None)
    domainbed.__path__ = []
    lib = module("domainbed.lib", None)
    lib.__path__ = []
    lib.wide_resnet = module("domainbed.lib.wide_resnet", None)
    module("domainbed.lib.fast_data_loader", None, InfiniteDataLoader=None, FastDataLoader=None)
    module("domainbed.datasets", None, get_dataset=None, split_dataset=None)
    module("domainbed.networks.backbones", None, get_backbone=None)
    for name, names in {"tqdm": ["tqdm"], "easydict": ["EasyDict"], "sconf": ["Config"]}.items():
        module(name, None, **dict.fromkeys(names))
    module("benchmark_notes.instr_state", notes + "instr_state.py")
    return module("benchmark_notes.coverage", notes + "coverage.py"), utils, module("domainbed.networks", base + "domainbed/networks/networks.py")


class Network(nn.Module):
    def __init__(self, networks, channels, classes):
        super().__init__()
        self.featurizer = networks.MNIST_CNN((channels, 28, 28))
        self.classifier = nn.Linear(128, classes)

    def forward(self, x):
        return self.classifier(self.featurizer(x))


def assess(coverage, utils, network, batches, settings):
    """The reference's whole way: hooks, KL gradient, pooling, states of what is classified correctly, bins."""
    m, least, alpha = settings
    # The reference pools by the name of its backbone, and that is resnet50 unless it is told otherwise.
    spatial = utils.FeatSpatialize("resnet50")
    c = coverage.KMNC({"featurizer.bn3": 128}, torch.device("cpu"), {"M": m, "O": least}, utils.unpack_data)
    states, accuracy = c.assess(network, batches, spatial_func=spatial, method="sigmoid(o*g_kl[f])", sig_alpha=alpha, save_state=True)
    return c.update(method="avg")[-1].item(), c.estimator_dict["featurizer.bn3"].t_act, states["featurizer.bn3"], accuracy


def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    kinds = {"F32": np.float32, "U8": np.uint8}
    return {k: torch.from_numpy(np.frombuffer(data[slice(*v["data_offsets"])], kinds[v["dtype"]]).reshape(v["shape"]).copy()) for k, v in header.items() if k != "__metadata__"}


def fill(name, shape, low, high):
    """The rule by which the tests fill tensors; see golden.py."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & ((1 << 64) - 1)
    z = (np.uint64(h) + np.arange(int(np.prod(shape)), dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((low + (high - low) * (z >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32).reshape(shape))


def network(coverage, utils, networks):
    """MNIST_CNN with made weights, on made digits; every second label is made right."""
    net = Network(networks, 1, 10)
    for name, p in net.named_parameters():
        bound = 0.1 if p.ndim == 1 else 1.5 * (3 / p[0].numel()) ** 0.5
        p.data = fill(name, p.shape, 0.5, 1.5) if ".bn" in name and name.endswith("weight") else fill(name, p.shape, -bound, bound)
    digits = read("dg/testdata/reference.safetensors")
    x, y = digits["digits.images"].float()[:, None] / 255, digits["digits.labels"].long()
    with torch.no_grad():
        y[::2] = net(x).argmax(1)[::2]
    out, meta = {"labels": y.to(torch.uint8).numpy()}, {}
    batches = [{"x": x[i:i + 32], "y": y[i:i + 32]} for i in range(0, len(x), 32)]
    for tag, settings in {"paper": (50, 500, 0.1), "few": (50, 3, 0.1), "steep": (50, 3, 2.0)}.items():
        value, counts, (z, right, g), accuracy = assess(coverage, utils, net, batches, settings)
        meta[tag] = json.dumps({"M": settings[0], "O": settings[1], "sig_alpha": settings[2], "coverage": value, "right": int(right.sum()), "accuracy": accuracy})
        out[tag + ".counts"] = counts.sum(1).numpy()
    out["z"], out["g"] = z[:5].numpy(), g[:5].numpy()
    return out, meta


def trained(coverage, utils, networks, checkpoint, mnist, most):
    sd = read(checkpoint)
    net = Network(networks, 2, 2)
    net.load_state_dict(sd)
    idx = lambda name, skip: np.frombuffer(gzip.open(f"{mnist}/{name}-ubyte.gz").read()[skip:], np.uint8)
    x = torch.from_numpy(np.concatenate([idx("train-images-idx3", 16), idx("t10k-images-idx3", 16)]).reshape(-1, 28, 28))
    y = torch.from_numpy(np.concatenate([idx("train-labels-idx1", 8), idx("t10k-labels-idx1", 8)]))
    torch.manual_seed(0)
    order = torch.randperm(len(x))
    x, y, batches = x[order], y[order], []
    for domain, share in enumerate([0.1, 0.2, 0.9]):
        bernoulli = lambda p, n: (torch.rand(n) < p).float()
        yi = (y[domain::3] < 5).float()
        yi = (yi - bernoulli(0.25, len(yi))).abs()
        colour = (yi - bernoulli(share, len(yi))).abs()
        keys = list(range(len(yi)))
        np.random.RandomState(int(hashlib.md5(str((0, domain)).encode()).hexdigest(), 16) % 2**31).shuffle(keys)
        keys = keys[int(len(yi) * 0.2):][:most]
        if domain < 2:
            xi = torch.stack([x[domain::3][keys]] * 2, 1).float() / 255
            xi[torch.arange(len(keys)), (1 - colour[keys]).long()] *= 0
            batches += [{"x": xi[i:i + 100], "y": yi[keys][i:i + 100].long()} for i in range(0, len(keys), 100)]
    value, counts, (z, right, g), accuracy = assess(coverage, utils, net, batches, (50, 500, 0.1))
    states = utils.sigmoid((z * g)[right], 0.1)
    print(f"coverage {value:.9f}, accuracy {accuracy:.6f}, {int(right.sum())} states of a neuron, in {(counts > 0).sum(0).float().mean():.2f} of 49 bins")
    print("quantiles of the states (0, 1, 10, 50, 90, 99, 100 %):", np.quantile(states.numpy(), [0, 0.01, 0.1, 0.5, 0.9, 0.99, 1]).round(3).tolist())


def write(path, out, meta):
    names = {"float32": "F32", "uint8": "U8"}
    header, data = {"__metadata__": meta}, b""
    for name, t in sorted(out.items()):
        raw = np.ascontiguousarray(t).tobytes()
        header[name] = {"dtype": names[str(t.dtype)], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    coverage, utils, networks = reference(sys.argv[1])
    if len(sys.argv) > 2:
        return trained(coverage, utils, networks, sys.argv[2], sys.argv[3], int(sys.argv[4]))
    write("dg/testdata/coverage.safetensors", *network(coverage, utils, networks))
    torch.manual_seed(0)
    out, meta = {}, {}
    n, c = 400, 13
    o, g = torch.randn(n, c) * 8, torch.randn(n, c) * 4
    o[:, 0] *= 100  # saturated: states of 0 and 1
    o[:, 1] *= 0.001  # all about 0.5
    right = torch.rand(n) < 0.7
    out["o"], out["g"], out["right"] = o.numpy(), g.numpy(), right.numpy().astype(np.uint8)
    for tag, (m, least, alpha) in {"paper": (50, 500, 0.1), "few": (50, 5, 0.1), "odd": (7, 20, 1.0), "steep": (1000, 1, 2.0)}.items():
        estimator = coverage.Estimator(c, m, least, torch.device("cpu"))
        f = utils.get_state_func("sigmoid(o*g_kl[f])", alpha)
        for part in range(0, n, 128):
            estimator.update(f(o[part:part + 128], right[part:part + 128], g[part:part + 128]))
        out[tag + ".counts"] = estimator.t_act.numpy()
        out[tag + ".thresholds"] = estimator.thresh[:, 0].numpy()
        out[tag + ".coverage"] = estimator.get_score("avg")[1].reshape(1).numpy()
        meta[tag] = json.dumps({"M": m, "O": least, "alpha": alpha})
    write("coverage/testdata/nacme.safetensors", out, meta)


main()
