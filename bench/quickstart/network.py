"""The network of the quickstart and the file it is kept in.

The network is the CIFAR ResNet-20 of He et al. 2015 (section 4.2) with option-A
shortcuts: where a stage halves the size and doubles the channels, the shortcut
takes every second pixel and adds zero channels on both sides, so it has no
weights. Parameter names are those that nac calls `resnet20`.
"""

import json
import struct

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.widen = (outputs - inputs) // 2

    def forward(self, x):
        shortcut = x
        if self.stride != 1 or self.widen:
            thinned = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(thinned, (0, 0, 0, 0, self.widen, self.widen))
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet20(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.avgpool(x).flatten(1))


def save_checkpoint(path, network, metadata):
    """Writes the network as safetensors.

    Weights of convolutions and of the head are kept in half precision, which
    halves the file; everything of the batch norms stays float32, because small
    variances lose digits in half precision.
    """
    header = {"__metadata__": {k: str(v) for k, v in metadata.items()}}
    chunks, offset = [], 0
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        half = name.endswith("weight") and tensor.dim() > 1
        data = tensor.detach().numpy().astype("<f2" if half else "<f4").tobytes()
        header[name] = {
            "dtype": "F16" if half else "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def load_checkpoint(data):
    """Reads the bytes of a file of save_checkpoint: (network in eval mode, metadata)."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + o for o in entry["data_offsets"])
        dtype = {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]
        array = np.frombuffer(data[begin:end], dtype).astype(np.float32)
        tensors[name] = torch.from_numpy(array.reshape(entry["shape"]))
    network = ResNet20(tensors["linear.weight"].shape[0])
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    missing = [n for n in missing if not n.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"checkpoint: missing {missing}, unexpected {unexpected}")
    return network.eval(), metadata
