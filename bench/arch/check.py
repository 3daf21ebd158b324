#!/usr/bin/env python3
"""Compares nac's architectures with PyTorch: logits, pooled states and pooled
gradients of KL(uniform || softmax) on made weights and images.

    python bench/arch/check.py [--openood CHECKOUT] [--images N] [--keep DIR] [NAME ...]

PyTorch computes in float64 and writes its numbers to a directory; then
`go test ./arch -run TestPyTorch` compares. Without names all architectures are
compared for which PyTorch has the network: torchvision has most, a checkout of
github.com/Jingkang50/OpenOOD the forms for small images. Needs torch,
torchvision and numpy. The references in arch/testdata/pytorch are this
script's, with --keep arch/testdata/pytorch.
"""
import argparse, importlib.util, json, math, os, struct, subprocess, sys, tempfile

import numpy as np
import torch
import torchvision.models as tv

U64 = np.uint64


def uniform(name, n):
    """n made values in [0,1): splitmix64 of the name's FNV-1a hash plus the index."""
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = (h ^ c) * 0x100000001B3 % 2**64
    x = np.arange(n, dtype=U64) + U64((h + 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ x >> U64(30)) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> U64(27)) * U64(0x94D049BB133111EB)
    x ^= x >> U64(31)
    return (x >> U64(40)).astype(np.float64) / 2**24


def fill(model, gain):
    """Gives every tensor its made values, rounded to float32."""
    for name, t in model.state_dict().items():
        if name.endswith("num_batches_tracked") or name.endswith("relative_position_index"):
            continue
        u, s = uniform(name, t.numel()), 2 * uniform(name, t.numel()) - 1
        if name.endswith("running_var") or (name.endswith("weight") and t.dim() == 1):
            v = 0.5 + u
        elif name.endswith("weight"):
            v = s * (gain * math.sqrt(3 / (t.numel() / t.shape[0])))
        else:
            v = 0.1 * s
        if name.endswith(("class_token", "pos_embedding", "relative_position_bias_table")):
            v = 0.02 * s
        t.copy_(torch.from_numpy(v.astype(np.float32).reshape(tuple(t.shape))))


def pool(name, t, channels_last):
    """The sum over space or tokens; of a vision transformer's last layer norm the class token."""
    if t.dim() == 3:
        return t[:, 0] if name == "layer_norm" else t.sum(1)
    if t.dim() == 4:
        return t.sum((1, 2) if channels_last and t.shape[2:] != (1, 1) else (2, 3))
    return t


def reference(model, layers, head, size, images, seed="input"):
    """Logits, and the pooled activation and gradient of each layer."""
    kept = {}

    hooks = []

    def keep(name):
        def hook(_, __, out):
            out.retain_grad()
            kept[name] = out
            return out.clone()  # what follows may work in place
        return hook

    modules = dict(model.named_modules())
    for name in layers:
        module = layers[name] if isinstance(layers, dict) else name
        if name == "avgpool" and name not in modules:
            def before(_, args):
                args[0].retain_grad()
                kept["avgpool"] = args[0]
            hooks.append(modules[head].register_forward_pre_hook(before))
        else:
            hooks.append(modules[module].register_forward_hook(keep(name)))
    x = (2 * (2 * uniform(seed, images * math.prod(size)) - 1)).astype(np.float32)
    x = torch.from_numpy(x.reshape(images, *size)).to(next(model.parameters()).dtype).requires_grad_()
    logits = model(x)
    k = logits.shape[1]
    (-torch.log_softmax(logits, 1).sum() / k).backward()
    for h in hooks:
        h.remove()
    swin = isinstance(model, tv.SwinTransformer)
    single = lambda t: t.detach().numpy().astype(np.float32)
    out = {"logits": single(logits)}
    for name, t in kept.items():
        out[name + ".state"], out[name + ".kl_grad"] = single(pool(name, t, swin)), single(pool(name, t.grad, swin))
    return out


def steady(model, layers, head, size, images):
    """The name of made images, and their reference, of which no ReLU's input is so
    near zero that PyTorch's own float32 lets a unit's gradient come or go."""
    best = None
    for seed in ["input"] + [f"input{i}" for i in range(1, 10)]:
        exact = reference(model.double(), layers, head, size, images, seed)
        single = reference(model.float(), layers, head, size, images, seed)
        off = max(np.abs(exact[k] - single[k]).max() / np.abs(exact[k]).max() for k in exact)
        if best is None or off < best[0]:
            best = off, seed, exact
        if off < 1e-5:
            break
    return best


def write(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(np.ascontiguousarray(t).tobytes())


def openood(checkout, file, name, *args, **kwargs):
    spec = importlib.util.spec_from_file_location(file, os.path.join(checkout, "openood/networks", file + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)(*args, **kwargs)


RESNET = ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
DENSENET = ["features.conv0", "features.pool0"] + [
    f"features.{kind}{i}" for i in (1, 2, 3, 4) for kind in ("denseblock", "transition") if kind + str(i) != "transition4"
] + ["features.norm5", "avgpool", "classifier"]



def vit(blocks):
    return {"conv_proj": "conv_proj", **{f"layer_{i}": f"encoder.layers.encoder_layer_{i}.ln_2" for i in range(blocks)},
            "layer_norm": "encoder.ln", "heads.head": "heads.head"}


def swin(*blocks):
    layers = {"conv_proj": "features.0"}
    for i, n in zip((1, 3, 5, 7), blocks):
        layers[f"layer_{i}"] = f"features.{i}.{n - 1}.mlp.0"
        layers[f"patch_{i + 1}"] = f"features.{i + 1}"
    del layers["patch_8"]
    return {**layers, "layer_norm": "norm", "avgpool": "avgpool", "head": "head"}


CONVNEXT = [f"features.{i}" for i in range(8)] + ["avgpool", "classifier.0", "classifier.2"]
CIFAR = ["conv1", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
K = 10
# name: how to make it (of a checkout of OpenOOD), gain, image size, layers, last linear layer
NETWORKS = {
    "wrn_28_10": (lambda o: openood(o, "wrn", "WideResNet", 28, K, 10), 0.5, 32,
                  ["conv1", "block1", "block2", "block3", "relu", "avgpool", "fc"], "fc"),
    "densenet_bc_100_12": (lambda o: openood(o, "densenet", "DenseNet3", num_classes=K), 1.0, 32,
                           ["conv1", "block1", "trans1", "block2", "trans2", "block3", "relu", "avgpool", "fc"], "fc"),
    "lenet": (lambda o: openood(o, "lenet", "LeNet", K), 1.4, 28, ["block1", "block2", "block3", "relu", "fc"], "fc"),
    "resnet18_32x32": (lambda o: openood(o, "resnet18_32x32", "ResNet18_32x32", num_classes=K), 1.1, 32, CIFAR, "fc"),
    "resnet18_64x64": (lambda o: openood(o, "resnet18_64x64", "ResNet18_64x64", num_classes=K), 1.1, 64, CIFAR, "fc"),
    "resnet18_224x224": (lambda o: openood(o, "resnet18_224x224", "ResNet18_224x224", num_classes=K), 1.0, 224, RESNET, "fc"),
    "resnet18": (lambda _: tv.resnet18(num_classes=K), 1.0, 224, RESNET, "fc"),
    "resnet34": (lambda _: tv.resnet34(num_classes=K), 1.0, 224, RESNET, "fc"),
    "resnet50": (lambda _: tv.resnet50(num_classes=K), 0.9, 224, RESNET, "fc"),
    "resnet101": (lambda _: tv.resnet101(num_classes=K), 0.8, 224, RESNET, "fc"),
    "densenet121": (lambda _: tv.densenet121(num_classes=K), 1.0, 224, DENSENET, "classifier"),
    "densenet161": (lambda _: tv.densenet161(num_classes=K), 0.5, 224, DENSENET, "classifier"),
    "densenet169": (lambda _: tv.densenet169(num_classes=K), 0.5, 224, DENSENET, "classifier"),
    "densenet201": (lambda _: tv.densenet201(num_classes=K), 0.5, 224, DENSENET, "classifier"),
    "convnext_tiny": (lambda _: tv.convnext_tiny(num_classes=K), 1.0, 224, CONVNEXT, "classifier.2"),
    "convnext_small": (lambda _: tv.convnext_small(num_classes=K), 1.0, 224, CONVNEXT, "classifier.2"),
    "convnext_base": (lambda _: tv.convnext_base(num_classes=K), 1.0, 224, CONVNEXT, "classifier.2"),
    "convnext_large": (lambda _: tv.convnext_large(num_classes=K), 1.0, 224, CONVNEXT, "classifier.2"),
    "mobilenet_v2": (lambda _: tv.mobilenet_v2(num_classes=K), 0.8, 224,
                     [f"features.{i}" for i in range(19)] + ["avgpool", "classifier.1"], "classifier.1"),
    "vit_b_16": (lambda _: tv.vit_b_16(num_classes=K), 1.4, 224, vit(12), "heads.head"),
    "vit_b_32": (lambda _: tv.vit_b_32(num_classes=K), 1.4, 224, vit(12), "heads.head"),
    "vit_l_16": (lambda _: tv.vit_l_16(num_classes=K), 1.4, 224, vit(24), "heads.head"),
    "vit_l_32": (lambda _: tv.vit_l_32(num_classes=K), 1.4, 224, vit(24), "heads.head"),
    "swin_t": (lambda _: tv.swin_t(num_classes=K), 1.4, 224, swin(2, 2, 6, 2), "head"),
    "swin_s": (lambda _: tv.swin_s(num_classes=K), 1.4, 224, swin(2, 2, 18, 2), "head"),
    "swin_b": (lambda _: tv.swin_b(num_classes=K), 1.4, 224, swin(2, 2, 18, 2), "head"),
}
OPENOOD = {"wrn_28_10", "densenet_bc_100_12", "lenet", "resnet18_32x32", "resnet18_64x64", "resnet18_224x224"}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--openood", help="checkout of OpenOOD")
    p.add_argument("--images", type=int, default=1)
    p.add_argument("--keep", help="directory to keep PyTorch's numbers in; nothing is compared")
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    torch.set_grad_enabled(True)
    where = a.keep or tempfile.mkdtemp()
    for name in a.names or NETWORKS:
        make, gain, size, layers, head = NETWORKS[name]
        if name in OPENOOD and not a.openood:
            print(f"{name}: skipped, as there is no --openood", file=sys.stderr)
            continue
        model = make(a.openood).double().eval()
        fill(model, gain)
        off, seed, tensors = steady(model, layers, head, (3, size, size), a.images)
        for key, t in model.state_dict().items():
            if key.endswith("features.1.0.attn.relative_position_index"):
                tensors[key] = t.numpy().astype(np.float32)
        print(f"{name}: PyTorch's float32 is off by {off:.1e} on {seed}", flush=True)
        write(os.path.join(where, name + ".safetensors"), tensors,
              {"gain": str(gain), "input": seed, "parameters": str(sum(t.numel() for t in model.parameters()))})
    if not a.keep:
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
        sys.exit(subprocess.call(["go", "test", "./arch", "-count=1", "-run", "TestPyTorch", "-v"], cwd=root,
                                 env=dict(os.environ, NAC_PYTORCH=os.path.abspath(where))))


if __name__ == "__main__":
    main()
