"""The networks that are measured, and the files their weights are kept in.

    python networks.py --arch resnet18_32x32 --out weights.safetensors
    python networks.py --arch resnet20 --checkpoint resnet20.th --out weights.safetensors
"""

import argparse
import json
import os
import struct
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "quickstart"))
from network import ResNet20  # noqa: E402


class BasicBlock(nn.Module):
    """The basic block of He et al. 2016 with a projection where the size changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images: a 3x3 stem, no first pooling. Parameter names are OpenOOD's."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [64, 64, 128, 256, 512]
        for i in range(1, 5):
            stage = nn.Sequential(
                BasicBlock(widths[i - 1], widths[i], 1 if i == 1 else 2),
                BasicBlock(widths[i], widths[i], 1),
            )
            setattr(self, f"layer{i}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def build(arch, classes):
    """The network, with random weights, and the size of its square images."""
    if arch == "resnet20":
        return ResNet20(classes), 32
    if arch == "resnet18_32x32":
        return ResNet18(classes), 32
    if arch in ("resnet18", "resnet50", "vit_b_16", "vit_b_32", "swin_t", "mobilenet_v2", "convnext_tiny"):
        import torchvision  # only here: the others need none of it

        return getattr(torchvision.models, arch)(num_classes=classes), 224
    raise SystemExit(f"peer: no architecture {arch!r} here")


def module(arch, layer):
    """The name of the module whose output is the layer."""
    kind, _, number = layer.partition("_")
    if arch.startswith("vit") and number:
        return "encoder.ln" if layer == "layer_norm" else f"encoder.layers.encoder_{layer}.ln_2"
    if arch.startswith("swin") and number:
        last = 5 if number == "5" else 1
        return "norm" if layer == "layer_norm" else f"features.{number}" + (f".{last}.mlp.0" if kind == "layer" else "")
    return layer


def pool(arch, layer, x):
    """The sum over space or tokens; of a vision transformer's last layer norm the class token."""
    if x.dim() == 3:
        return x[:, 0] if layer == "layer_norm" else x.sum(1)
    if x.dim() == 4:
        return x.sum((1, 2) if arch.startswith("swin") and layer != "avgpool" else (2, 3))
    return x


def randomise(network, seed):
    """Fills the network so that activations keep their size and no batch norm is the identity."""
    random = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        u = torch.rand(tensor.shape, generator=random)
        if tensor.dim() > 1:
            u = (2 * u - 1) * (3 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_var", "weight")):
            u = 0.5 + u
        else:
            u = 0.1 * (2 * u - 1)
        tensor.copy_(u)


def save(path, state):
    header, chunks, offset = {}, [], 0
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        data = tensor.detach().float().contiguous().numpy().tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def read(path):
    """The tensors of a safetensors file, as float32."""
    with open(path, "rb") as f:
        data = f.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + o for o in entry["data_offsets"])
        dtype = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        array = np.frombuffer(data[begin:end], dtype).astype(np.float32)
        tensors[name] = torch.from_numpy(array.reshape(entry["shape"]))
    return tensors


def load(arch, path):
    """The network in eval mode with the weights of a safetensors file."""
    tensors = read(path)
    head = [t for n, t in tensors.items() if n.endswith("weight") and t.dim() == 2][-1]
    network, side = build(arch, head.shape[0])
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    missing = [n for n in missing if network.state_dict()[n].is_floating_point()]
    if missing or unexpected:
        raise SystemExit(f"peer: {path}: missing {missing}, unexpected {unexpected}")
    return network.eval(), side


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="weights to convert; without it they are random")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    if not args.checkpoint:
        network, _ = build(args.arch, args.classes)
        with torch.no_grad():
            randomise(network, args.seed)
        save(args.out, network.state_dict())
        return
    if args.checkpoint.endswith(".safetensors"):
        state = read(args.checkpoint)
    else:
        state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
    save(args.out, {k.removeprefix("module."): v for k, v in state.items()})


if __name__ == "__main__":
    main()
