"""Scores of OpenOOD's own classes that move images, for probe/testdata/newer.json.

    python bench/newer/network.py OPENOOD BASELINES.safetensors > probe/testdata/newer.json

OPENOOD is a checkout of Jingkang50/OpenOOD. The network, its images and the last layer,
which BASELINES.safetensors holds, are those of the other baselines' reference scores.
Needs torch, numpy, safetensors. The defaults also in float64.
"""
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent.parent / "real"))
from reference import Classes, config  # noqa: E402

GAIN = 1.1
STD = [0.2470, 0.2435, 0.2616]
VAL, TEST, NOVEL = 128, 32, 16


class ECDF:
    """The share of a sample at or below x, as statsmodels has it."""

    def __init__(self, sample):
        self.sorted = np.sort(np.asarray(sample))

    def __call__(self, x):
        return np.searchsorted(self.sorted, np.asarray(x), side="right") / len(self.sorted)


def fill(name, shape):
    """Numbers in [-1, 1), of a tensor's name and the flat index alone."""
    h = np.uint64(0xCBF29CE484222325)
    with np.errstate(over="ignore"):
        for b in name.encode():
            h = (h ^ np.uint64(b)) * np.uint64(0x100000001B3)
        z = h + np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (2 * ((z >> np.uint64(40)).astype(np.float64) / 2**24) - 1).reshape(shape)


def network(openood, baselines):
    net = Classes(openood, "nets").load("networks/resnet18_32x32.py").ResNet18_32x32(num_classes=10)
    state = net.state_dict()
    for key, v in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.startswith("fc."):
            state[key] = torch.from_numpy(baselines[key])
            continue
        s = fill(key, v.shape)
        if key.endswith("running_var") or key.endswith("weight") and v.dim() == 1:
            s = 0.5 + (s + 1) / 2
        elif key.endswith("weight"):
            s = s * (GAIN * np.sqrt(3 / np.prod(v.shape[1:])))
        else:
            s = 0.1 * s
        state[key] = torch.from_numpy(s.astype(np.float32))
    net.load_state_dict(state)
    return net.eval()


def images(split, n, novel):
    out = []
    for i in range(n):
        proto = f"bl.proto.{i % 10}" if i < novel else f"bl.{split}.{i}.p"
        x = np.kron(fill(proto, (3, 4, 4)), np.ones((1, 8, 8)))
        x = x + 0.5 * np.kron(fill(f"bl.{split}.{i}.s", (3, 8, 8)), np.ones((1, 4, 4)))
        out.append((x + 0.25 * fill(f"bl.{split}.{i}.n", (3, 32, 32))).astype(np.float32))
    return torch.from_numpy(np.stack(out))


def main(openood, baselines):
    sys.modules["tqdm"] = types.SimpleNamespace(tqdm=lambda it, **_: it)
    sys.modules["statsmodels.distributions.empirical_distribution"] = types.SimpleNamespace(ECDF=ECDF)
    torch.Tensor.cuda = lambda self, *_, **__: self
    baselines = load_file(baselines)
    plain = network(openood, baselines).requires_grad_(False)
    val, test = images("val", VAL, VAL), images("test", TEST, NOVEL)
    assert np.array_equal(test.numpy(), baselines["test.image"])
    new = Classes(openood, "newer")
    new.load("postprocessors/odin_postprocessor.py")
    iodin = new.load("postprocessors/iodin_postprocessor.py").IODINPostprocessor
    ada, nets = new.load("postprocessors/adascale_postprocessor.py"), new.load("networks/adascale_net.py")
    scores = {}
    for kind in (torch.float32, torch.float64):
        net = plain.to(kind)
        data = test.to(kind)
        name = "" if kind == torch.float32 else " f64"

        def run(key, p, network=net):
            conf = [p.postprocess(network, data[i:i + 16].clone())[1].detach() for i in (0, 16)]
            scores[key + name] = [float(c) for c in torch.cat(conf)]

        def two_ranks_off(key, p):
            """What the scores are if two more or two less of the validation images are below."""
            ecdf = p.ecdf
            for end, by in ((" below", 2), (" above", -2)):
                p.ecdf = lambda x: np.clip(ecdf(x) + by / VAL, 0, 1)
                run(key + end, p, p.net)

        count = 2 if kind == torch.float32 else 1
        for t, noise in ((1000, 0.0014), (1, 0.0028))[:count]:
            p = iodin(config(temperature=t, noise=noise))
            p.input_std = STD
            run("iodin" if t == 1000 else "iodin temperature=1 noise=0.0028", p)
        for form in "al":
            for low, high, k1, k2, weight, o in ((75, 85, 5, 1, 10, 0.05), (60, 65, 50, 20, 3, 0.1))[:count]:
                p = ada.AdaScalePostprocessor(config(percentile=[low, high], k1=k1, k2=k2, lmbda=weight, o=o, num_samples=5000))
                p.net = getattr(nets, f"AdaScale{form.upper()}Net")(net)
                # Its batches are float32 whatever the network is.
                batches = [{"data": types.SimpleNamespace(cuda=lambda i=i: types.SimpleNamespace(float=lambda: val[i:i + 32].to(kind)))}
                           for i in range(0, VAL, 32)]
                p.setup(p.net, {"val": batches}, None)
                p.set_hyperparam([[low, high], k1, k2, weight, o])
                key = "adascale_" + form
                if low != 75:
                    key += f" percentile_low={low} percentile_high={high} k1={k1} k2={k2} lambda={weight} o={o}"
                run(key, p, p.net)
                if kind == torch.float32:
                    two_ranks_off(key, p)
    print(json.dumps(scores, indent=0))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
