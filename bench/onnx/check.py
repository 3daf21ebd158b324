#!/usr/bin/env python3
"""Compares ONNX models imported by nac with PyTorch, from which they are exported.

    python bench/onnx/check.py [--exporter torchscript|dynamo] [--opset N] [--models DIR] [--table FILE] [NAME ...]

For each network of torchvision or timm: made weights, export, logits of both;
then the pooled state of every module that PyTorch runs is looked for among the
layers of the imported model, and its pooled gradient of KL(uniform || softmax)
compared with that of the layer found. PyTorch computes in float64. A ReLU's
input so near zero that float32 decides its sign lets a whole unit's gradient come
or go: where gradients differ, another of twelve images is tried, and networks of very
many ReLUs get small images. Without names all
networks are compared, by both exporters, at several operator sets. Needs torch,
torchvision, timm, numpy, onnx and onnxscript; models go to DIR, by default a
temporary folder; FILE gets the results as rows of a Markdown table.
"""
import argparse, contextlib, io, json, os, struct, subprocess, sys, tempfile, warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../arch"))
import numpy as np
import torch
import torchvision.models as tv

import check as arch

NETWORKS = {
    # name: gain of the made weights
    "resnet18": 1.0, "resnet50": 0.9, "wide_resnet50_2": 0.7, "resnext50_32x4d": 0.8,
    "regnet_x_400mf": 1.0, "regnet_y_400mf": 1.0, "vgg11": 1.2, "vgg16_bn": 1.0, "alexnet": 1.2,
    "squeezenet1_0": 1.2, "squeezenet1_1": 1.2, "densenet121": 0.8,
    "shufflenet_v2_x1_0": 1.0, "mobilenet_v2": 0.8, "mobilenet_v3_small": 1.0, "mobilenet_v3_large": 1.0,
    "mnasnet1_0": 0.9, "efficientnet_b0": 1.0, "efficientnet_v2_s": 0.7, "googlenet": 1.0, "convnext_tiny": 1.0,
    "vit_b_16": 1.4, "swin_t": 1.4,
    "timm/deit_tiny_patch16_224": 1.4, "timm/deit_tiny_distilled_patch16_224": 1.4, "timm/vit_tiny_patch16_224": 1.4,
    "timm/deit3_small_patch16_224": 1.4, "timm/swin_tiny_patch4_window7_224": 1.4, "timm/convnext_atto": 1.0,
    "timm/tf_efficientnet_b0": 1.0, "timm/mixer_s32_224": 1.2,
}
SIZES = {"wide_resnet50_2": 64, "densenet121": 64}  # of images, where not 224
# Operator sets beside 17 of the older exporter and 18 of the newer.
OTHERS = {n: [("torchscript", o) for o in (11, 13, 20)] + [("dynamo", o) for o in (20, 21, 23)]
          for n in ("resnet18", "mobilenet_v3_small", "convnext_tiny", "vit_b_16", "swin_t")}


def network(name):
    if name.startswith("timm/"):
        import timm
        return timm.create_model(name[5:], num_classes=10)
    extra = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return tv.get_model(name, weights=None, num_classes=10, **extra)


def pooled(t):
    """The sums over pixels that a tensor of one image may be read as: of N, C, H, W
    and N, H, W, C; of tokens; of tokens within windows."""
    t = t.detach().numpy()
    if t.ndim == 4:
        return t.sum((2, 3)), t.sum((1, 2))
    return (t.reshape(-1, t.shape[-1]).sum(0)[None],)


def states(model, x):
    kept, undo = {}, []

    def keep(name):
        def hook(_, __, out):
            if isinstance(out, torch.Tensor) and out.requires_grad and out.dim() in (2, 3, 4):
                out.retain_grad()
                kept[name] = out
                return out.clone()
        return hook

    for name, module in model.named_modules():
        if name:
            undo.append(module.register_forward_hook(keep(name)))
    logits = model(x.requires_grad_())
    (-torch.log_softmax(logits, 1).sum() / logits.shape[1]).backward()
    for u in undo:
        u.remove()
    return logits.detach().numpy(), {k: (pooled(v), pooled(v.grad)) for k, v in kept.items() if v.grad is not None}


def read(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        header, data = json.loads(f.read(n)), f.read()
    header.pop("__metadata__", None)
    return {k: np.frombuffer(data[v["data_offsets"][0]:v["data_offsets"][1]], np.float32).reshape(v["shape"])
            for k, v in header.items()}


def off(a, b):
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if a.shape == b.shape else np.inf


def compare(tool, path, given, got, expected, x, tolerance):
    logits, modules = expected
    arch.write(given, {"input": x}, {})
    run = subprocess.run([tool, path, given, got], capture_output=True, text=True)
    if run.returncode:
        return False, run.stderr.strip(), "refused | |"
    ours = read(got)
    found, worst, worst_name = 0, 0.0, ""
    for module, (z, g) in modules.items():
        errors = [off(ours[k[:-1] + "g"], g[i]) for k in ours if k.endswith("|z")
                  for i in range(len(z)) if off(ours[k], z[i]) < tolerance]
        if errors:
            found += 1
            if min(errors) > worst:
                worst, worst_name = min(errors), module
    e = off(ours["logits"], logits)
    row = f"{e:.1e} | {found} of {len(modules)} | {worst:.1e}"
    text = (f"logits off by {e:.1e}; {found} of {len(modules)} modules found, "
            f"gradients off by {worst:.1e} {worst_name}")
    if e >= tolerance or found <= 3:
        return False, "WRONG: " + text, row
    return (True, "ok: " + text, row) if worst < tolerance else (False, "gradients differ: " + text, row)


def export(model, x, path, exporter, opset):
    if exporter == "dynamo":
        torch.onnx.export(model, (x,), path, opset_version=opset, dynamo=True, verbose=False)
    else:
        torch.onnx.export(model, x, path, opset_version=opset, dynamo=False,
                          input_names=["input"], dynamic_axes={"input": {0: "N"}})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--opset", type=int)
    p.add_argument("--exporter", choices=["torchscript", "dynamo"])
    p.add_argument("--table")
    p.add_argument("--models")
    p.add_argument("--tolerance", type=float, default=1e-4)
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    warnings.filterwarnings("ignore")
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    where = a.models or tempfile.mkdtemp()
    os.makedirs(where, exist_ok=True)
    tool = os.path.join(where, "nac-onnx")
    subprocess.check_call(["go", "build", "-o", tool, "./bench/onnx"], cwd=root)
    bad = 0
    for name in a.names or NETWORKS:
        model = network(name).double().eval()
        arch.fill(model, NETWORKS[name])
        size = SIZES.get(name, 224)
        images = [(2 * (2 * arch.uniform(f"input{i or ''}", 3 * size * size) - 1)).astype(np.float32).reshape(1, 3, size, size)
                  for i in range(12)]
        expected = [None] * len(images)
        path, given, got = (os.path.join(where, name.replace("/", "_") + e) for e in (".onnx", ".input", ".output"))
        jobs = [("torchscript", a.opset or 17), ("dynamo", a.opset or 18)] + ([] if a.opset else OTHERS.get(name, []))
        for exporter, opset in jobs:
            if a.exporter not in (None, exporter):
                continue
            x = torch.from_numpy(images[0])
            model.float()
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    export(model, x, path, exporter, opset)
            except torch.onnx.errors.UnsupportedOperatorError as e:
                print(f"{name} {exporter} {opset}: PyTorch cannot write it: {e}", flush=True)
                continue
            finally:
                model.double()
            for i, x in enumerate(images):
                if expected[i] is None:
                    expected[i] = states(model, torch.from_numpy(x).double())
                ok, text, row = compare(tool, path, given, got, expected[i], x, a.tolerance)
                if ok or "differ" not in text:
                    break
            bad += not ok
            print(f"{name} {exporter} {opset}: {text}", flush=True)
            if a.table:
                with open(a.table, "a") as f:
                    f.write(f"| {name} | {exporter} {opset} | {row} |\n")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
