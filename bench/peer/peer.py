"""One contestant: does one job in PyTorch (or a runtime beside it) again and again.

Talks with bench/peer (the Go program) in lines of JSON: first what it is and a
check of what it computes; then, for each number of seconds on the standard
input, how many items it did in how long.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import networks


def kl(logits):
    """KL(uniform || softmax) summed over the batch, up to a constant."""
    return -F.log_softmax(logits, 1).mean(1).sum()


def keep_outputs(network, layers, replace=None):
    """Hooks that put each layer's output into the returned dict; replace is applied to the shallowest."""
    outputs = {}

    def hook(name):
        def keep(module, inputs, out):
            if replace and name == layers[-1]:
                out = replace(out)
            outputs[name] = out
            return out

        return keep

    for name in layers:
        network.get_submodule(networks.module(network.arch, name)).register_forward_hook(hook(name))
    return outputs


def pooled(network, layers, outputs, gradients):
    states = []
    for name, gradient in zip(layers, gradients):
        states.append(tuple(networks.pool(network.arch, name, t) for t in (outputs[name].detach(), gradient)))
    return states


def fuse(module):
    """Folds every BatchNorm into the convolution before it, in place."""
    previous = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, previous, fuse_conv_bn_eval(getattr(module, previous), child))
            setattr(module, name, nn.Identity())
        else:
            fuse(child)
        previous = name
    return module


def reference(network, images, layers):
    """What the NAC reference does: retain the layers' outputs, then one backward pass per layer."""
    outputs = keep_outputs(network, layers)

    def run():
        logits = network(images)
        gradients = []
        for i, name in enumerate(layers):
            (gradient,) = torch.autograd.grad(
                kl(logits), outputs[name], retain_graph=i + 1 < len(layers)
            )
            gradients.append(gradient)
        return logits.detach(), pooled(network, layers, outputs, gradients)

    return run


def single(network, images, layers, compile=False, dtype=torch.float32):
    """One backward pass to all layers; batch norms folded, channels last, no gradient above need."""
    network = fuse(network).requires_grad_(False).to(memory_format=torch.channels_last, dtype=dtype)
    images = images.to(dtype).contiguous(memory_format=torch.channels_last)
    outputs = keep_outputs(network, layers, lambda out: out.detach().requires_grad_())
    if compile:
        # Stage by stage: what a compiled graph returns is an end of it, so a
        # gradient at a layer needs a boundary there.
        for name, child in list(network.named_children()):
            if name.startswith("layer"):
                child.compile()

    def run():
        logits = network(images)
        gradients = torch.autograd.grad(kl(logits), [outputs[n] for n in layers])
        return logits.detach(), pooled(network, layers, outputs, gradients)

    return run


def compiled(network, images, layers):
    return single(network, images, layers, compile=True)


def bfloat16(network, images, layers):
    return single(network, images, layers, dtype=torch.bfloat16)


def forward(network, images, layers):
    """Logits alone, from a frozen graph of fused operations."""
    network = fuse(network).requires_grad_(False).to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        graph = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network, images)))

    def run():
        with torch.inference_mode():
            return graph(images), []

    return run


def onnxruntime(network, images, layers):
    import io

    import onnxruntime as ort

    model = io.BytesIO()
    torch.onnx.export(network, (images,), model, dynamo=False, input_names=["x"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.getvalue(), options, ["CPUExecutionProvider"])
    x = images.numpy()
    return lambda: (torch.from_numpy(session.run(None, {"x": x})[0]), [])


def openvino(network, images, layers):
    import openvino as ov

    model = ov.convert_model(network, example_input=images)
    model.reshape(list(images.shape))
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    x = images.numpy()
    return lambda: (torch.from_numpy(request.infer([x])[0].copy()), [])


def thresholds(m):
    """The reference's M thresholds, dense about 0.5."""
    low = np.log(np.linspace(1, np.sqrt(1000), m // 2)) / np.log(1000)
    rising = np.concatenate([low[:-1], 1 - low[::-1]])
    rising[-1] += 0.01
    return torch.from_numpy(np.append(rising, 1.2))


class Histogram:
    """The reference's estimator: every state is compared with every threshold."""

    def __init__(self, z, g, alpha, m, minimum):
        self.z, self.g, self.alpha, self.minimum = z, g, alpha, minimum
        self.thresholds = thresholds(m)[:, None].repeat(1, z.shape[1])
        self.counts = torch.zeros(m - 1, z.shape[1])

    def hits(self):
        state = 1 / (1 + torch.exp(-self.alpha * (self.z * self.g)))
        state = state[:, None]
        return (state >= self.thresholds[None, :-1]) & (state < self.thresholds[None, 1:])

    def build(self):
        self.counts += self.hits().sum(0)

    def covered(self):
        return (self.counts / self.minimum).clamp(max=1)

    def score(self, covered):
        return (self.hits() * covered[None]).sum(1).mean(1)


def network_job(args):
    network, side = networks.load(args.arch, args.weights)
    network.arch = args.arch
    images = torch.from_numpy(np.fromfile(args.images, np.float32)).reshape(-1, 3, side, side)
    images = images[: args.batch].contiguous()
    layers = args.layers.split(",")
    run = PATHS[args.path](network, images, layers)
    logits, states = run()
    check = [logits[0].tolist()] + [[t.abs().mean().item() for t in zg] for zg in states]
    return run, check, len(images)


def coverage_job(args):
    z, g = torch.from_numpy(np.fromfile(args.states, np.float32)).reshape(2, -1, args.channels)
    histogram = Histogram(z, g, args.alpha, args.M, args.O)
    histogram.build()
    covered = histogram.covered()
    if args.path == "coverage-build":
        check = [[(covered.sum(0) / args.M).mean().item()]]
        return histogram.build, check, z.numel()
    check = [histogram.score(covered)[:8].tolist()]
    return lambda: histogram.score(covered), check, z.numel()


PATHS = {f.__name__: f for f in (reference, single, compiled, bfloat16, forward, onnxruntime, openvino)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", required=True, choices=[*PATHS, "coverage-build", "coverage-score"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--arch")
    parser.add_argument("--weights", help="safetensors")
    parser.add_argument("--images", help="float32 NCHW, raw")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--layers", help="the deepest first")
    parser.add_argument("--states", help="float32 z and g, raw")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--M", type=int)
    parser.add_argument("--O", type=int)
    parser.add_argument("--alpha", type=float)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    job = coverage_job if args.path.startswith("coverage") else network_job
    run, check, items = job(args)
    with_runtime = {"onnxruntime": "onnxruntime", "openvino": "openvino"}.get(args.path)
    version = f"PyTorch {torch.__version__}"
    if with_runtime:
        version = f"{with_runtime} {sys.modules[with_runtime].__version__}"
    for _ in range(3):
        run()
    cpu = getattr(torch.backends, "cpu", None)  # absent before PyTorch 2.1
    isa = cpu.get_cpu_capability() if cpu else ""
    print(json.dumps({"version": version, "isa": isa, "check": check}), flush=True)
    for line in sys.stdin:
        limit = float(line)
        run()  # what others displaced from the caches comes back unmeasured
        began, done = time.perf_counter(), 0
        while True:
            run()
            done += items
            seconds = time.perf_counter() - began
            if seconds >= limit:
                break
        print(json.dumps({"items": done, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
