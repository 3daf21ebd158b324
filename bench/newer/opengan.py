"""Steps of OpenOOD's own OpenGAN trainer, for detector/testdata/opengan.json.

    python bench/newer/opengan.py OPENOOD > detector/testdata/opengan.json

OPENOOD is a checkout of Jingkang50/OpenOOD. Weights, features and noise are made by name, so
that both sides begin with the same; the trainer and the networks are the checkout's
files. After each epoch the networks are put into eval mode, as its evaluator does. Only
numbers are kept: losses of all steps, the discriminator's logits after each
epoch, every 7th of the weights at the end. Needs torch, numpy.
"""
import contextlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # which Adam would import later, when tqdm is replaced

sys.path.insert(0, str(Path(__file__).parent.parent / "real"))
from golden import fill  # noqa: E402
from reference import Classes  # noqa: E402

N, F, NOISE, WIDTH, BATCH, EPOCHS, TEST = 70, 24, 10, 8, 16, 3, 20


def made(name, *shape):
    return torch.from_numpy(fill("opengan." + name, int(np.prod(shape))).reshape(shape).astype(np.float32))


class Loader(list):
    """Batches in order, whose iterator knows their number as a DataLoader's does."""

    def __iter__(self):
        return Batches(list(super().__iter__()))


class Batches:
    def __init__(self, batches):
        self.batches, self.at = batches, 0

    def __len__(self):
        return len(self.batches)

    def __next__(self):
        self.at += 1
        return self.batches[self.at - 1]


def main(openood):
    sys.modules["tqdm"] = types.SimpleNamespace(tqdm=lambda it, **_: it)
    for name in ("openood", "openood.utils", "openood.utils.comm"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["openood.utils"].comm = sys.modules["openood.utils.comm"]
    sys.modules["openood.utils.comm"].is_main_process = lambda: True
    torch.Tensor.cuda = lambda self, *_, **__: self
    checkout = Classes(openood, "checkout")
    networks = checkout.load("networks/opengan.py")
    trainer = checkout.load("trainers/opengan_trainer.py").OpenGanTrainer
    net = {"netG": networks.Generator(NOISE, WIDTH, F), "netD": networks.Discriminator(F, WIDTH)}
    features = made("feature", N, F, 1, 1).clamp(min=0)
    loader = Loader({"data": features[i:i + BATCH]} for i in range(0, N, BATCH))
    config = types.SimpleNamespace(
        network=types.SimpleNamespace(nz=NOISE), optimizer=types.SimpleNamespace(lr=1e-3, beta1=0.5))
    with contextlib.redirect_stdout(sys.stderr):
        t = trainer(net, loader, config)
    with torch.no_grad():
        for name, n in net.items():
            for key, p in n.named_parameters():
                value = made(f"{name}.{key}", *p.shape)
                if p.dim() > 1:
                    value *= 1.5 * np.sqrt(1 / np.float32(p.shape[1]))
                elif key.endswith("weight"):
                    value = 1 + 0.2 * value
                else:
                    value *= 0.1
                p.copy_(value)
    steps = iter(range(10**9))
    torch.randn = lambda *shape: 1.7 * made(f"noise.{next(steps)}", *shape)
    test = made("test", TEST, F, 1, 1).clamp(min=0)
    logits = []
    for epoch in range(1, EPOCHS + 1):
        _, metrics = t.train_epoch(epoch)
        for n in net.values():
            n.eval()
        with torch.no_grad():
            p = net["netD"](test).double().flatten()
        logits.append([float(v) for v in torch.log(p / (1 - p))])
    weights = {}
    for name, n in net.items():
        for key, v in n.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                weights[f"{name}.{key}"] = [float(x) for x in v.flatten()[::7]]
    print(json.dumps({"lossD": metrics["D_losses"], "lossG": metrics["G_losses"], "logits": logits, "weights": weights}, indent=0))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
