"""Numbers of PyTorch and torchvision that tests compare with. Run it from the repository's root.

nn/testdata/training.safetensors: gradients of small networks in train mode, in float64.
train/testdata/pytorch.safetensors: steps of optimizers, losses, changes of colour.

Parameters and images are filled by the rule of fill below, as nn's tests fill theirs. Each network's
loss is the sum of its outputs times the fill named after them.
"""
import json
import struct

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

MASK = (1 << 64) - 1


def fill(name, shape, low=-1.0, high=1.0):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    z = (np.uint64(h) + np.arange(int(np.prod(shape)), dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / 2**24
    return (low + (high - low) * u).astype(np.float32).reshape(shape)


class Residual(nn.Module):
    """Convolutions plain, strided, grouped, depthwise, 1x1; batch norms, sums, ReLUs, max and mean pooling."""
    image = (3, 12, 12)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(20)
        self.conv2 = nn.Conv2d(20, 20, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(20)
        self.conv3 = nn.Conv2d(20, 36, 3, 2, 1, bias=True)
        self.bn3 = nn.BatchNorm2d(36)
        self.short = nn.Conv2d(20, 36, 1, 2, bias=False)
        self.bns = nn.BatchNorm2d(36)
        self.dw = nn.Conv2d(36, 36, 3, 2, 1, groups=36, bias=True)
        self.bn4 = nn.BatchNorm2d(36)
        self.gr = nn.Conv2d(36, 24, 3, 1, 1, groups=4, bias=True)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        x = F.relu(self.bn3(self.conv3(x)) + self.bns(self.short(x)))
        x = F.relu6(self.bn4(self.dw(x)))
        x = F.relu(self.gr(x))
        return self.fc(x.mean((2, 3)))


class Grouped(nn.Module):
    """Group norms behind ReLUs, as DomainBed's network for MNIST."""
    image = (2, 9, 9)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 16, 3, 1, 1)
        self.gn1 = nn.GroupNorm(4, 16)
        self.conv2 = nn.Conv2d(16, 24, 3, 2, 1)
        self.gn2 = nn.GroupNorm(8, 24)
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        x = self.gn1(F.relu(self.conv1(x)))
        x = self.gn2(F.relu(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class Perceptron(nn.Module):
    """Linear layers, batch norm, leaky ReLU, sigmoid."""
    image = (11, 1, 1)

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(11, 40)
        self.bn = nn.BatchNorm1d(40)
        self.fc2 = nn.Linear(40, 7)
        self.fc3 = nn.Linear(7, 1)

    def forward(self, x):
        x = F.leaky_relu(self.bn(self.fc1(x.flatten(1))), 0.2)
        return torch.sigmoid(self.fc3(F.gelu(self.fc2(x))))


class Transformer(nn.Module):
    """Patches, tokens, layer norm, attention, GELU."""
    image = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 32))
        self.pos = nn.Parameter(torch.zeros(1, 5, 32))
        self.ln1 = nn.LayerNorm(32, eps=1e-6)
        self.qkv = nn.Linear(32, 96)
        self.proj = nn.Linear(32, 32)
        self.ln2 = nn.LayerNorm(32, eps=1e-6)
        self.mlp1 = nn.Linear(32, 48)
        self.mlp2 = nn.Linear(48, 32)
        self.fc = nn.Linear(32, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        n, t, c = x.shape
        q, k, v = self.qkv(self.ln1(x)).reshape(n, t, 3, 2, 16).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.proj(y)
        x = x + self.mlp2(F.gelu(self.mlp1(self.ln2(x))))
        return self.fc(x[:, 0])


def write(path, tensors):
    names = {"float32": "F32", "uint8": "U8"}
    header, data = {}, b""
    for name, t in sorted(tensors.items()):
        raw = np.ascontiguousarray(t).tobytes()
        header[name] = {"dtype": names[str(t.dtype)], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def single(t):
    return t.detach().float().contiguous().numpy()


def gradients():
    out = {}
    for net in (Residual(), Grouped(), Perceptron(), Transformer()):
        kind = type(net).__name__.lower()
        net.double().train()
        with torch.no_grad():
            for name, p in net.named_parameters():
                norm = p.dim() == 1 and name.endswith("weight")
                scale = 1 / np.sqrt(np.prod(p.shape[1:])) if p.dim() > 1 and "pos" not in name and "cls" not in name else 0.3
                low, high = (0.5, 1.5) if norm else (-1, 1)
                v = fill(f"{kind}.{name}", p.shape, low, high)
                p.copy_(torch.from_numpy(v if norm else (v * np.float32(scale)).astype(np.float32)))
        x = torch.from_numpy(fill(f"{kind}.input", (6,) + net.image)).double().requires_grad_()
        y = net(x)
        (y * torch.from_numpy(fill(f"{kind}.output", y.shape)).double()).sum().backward()
        out[f"{kind}.value"] = single(y)
        out[f"{kind}.input.grad"] = single(x.grad)
        for name, p in net.named_parameters():
            out[f"{kind}.{name}.grad"] = single(p.grad)
        for name, b in net.named_buffers():
            if "running" in name:
                out[f"{kind}.{name}"] = single(b)
    return out


def steps():
    """Five steps of each optimizer on the fills named grad.0, grad.1, ..., learning rates 0.1, 0.05, ..."""
    out = {}
    for name, make in {
        "sgd": lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01),
        "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01),
        "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01),
    }.items():
        p = nn.Parameter(torch.from_numpy(fill("value", (17,))))
        optimizer = make([p])
        for step in range(5):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            p.grad = torch.from_numpy(fill(f"grad.{step}", (17,)))
            optimizer.step()
        out[f"optimizer.{name}"] = single(p)
    return out


def losses():
    out = {}
    labels = torch.tensor([1, 0, 3, 2, 3])
    for name, options in {
        "plain": {}, "smooth": {"label_smoothing": 0.1}, "weighted": {"weight": torch.tensor([0.5, 2.0, 1.0, 0.25]).double()},
        "both": {"label_smoothing": 0.2, "weight": torch.tensor([0.5, 2.0, 1.0, 0.25]).double()},
    }.items():
        z = (4 * torch.from_numpy(fill("logits", (5, 4))).double()).requires_grad_()
        loss = F.cross_entropy(z, labels, **options)
        loss.backward()
        out[f"loss.{name}"], out[f"loss.{name}.grad"] = single(loss.reshape(1)), single(z.grad)
    z = (4 * torch.from_numpy(fill("logits", (9,))).double()).requires_grad_()
    t = torch.from_numpy(fill("targets", (9,), 0, 1)).double()
    loss = F.binary_cross_entropy_with_logits(z, t)
    loss.backward()
    out["loss.binary"], out["loss.binary.grad"] = single(loss.reshape(1)), single(z.grad)
    return out


def colours():
    """torchvision's changes of colour, on Pillow images."""
    import torchvision.transforms.functional as V
    from PIL import Image
    pixels = np.random.RandomState(0).randint(0, 256, (9, 11, 3)).astype(np.uint8)
    pixels[0, :4] = pixels[0, :4, :1]
    pixels[1, :3] = [[255, 0, 0], [0, 0, 0], [255, 255, 255]]
    image, out = Image.fromarray(pixels), {"colour.image": pixels}
    for f in (0.7, 1.0, 1.3):
        out[f"colour.brightness.{f}"] = np.array(V.adjust_brightness(image, f))
        out[f"colour.contrast.{f}"] = np.array(V.adjust_contrast(image, f))
        out[f"colour.saturation.{f}"] = np.array(V.adjust_saturation(image, f))
    for f in (-0.3, 0.1, 0.5):
        out[f"colour.hue.{f}"] = np.array(V.adjust_hue(image, f))
    out["colour.grey"] = np.array(V.to_grayscale(image, 3))
    return out


write("nn/testdata/training.safetensors", gradients())
write("train/testdata/pytorch.safetensors", {**steps(), **losses(), **colours()})
