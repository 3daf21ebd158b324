"""Coverage numbers of NAC-ME's reference on made states: coverage/testdata/nacme.safetensors.

usage: nacme.py CHECKOUT        the reference, BierOne/ood_coverage

Only the estimator and the state functions of the checkout are run.
"""
import json
import struct
import sys
import types

import numpy as np
import torch


def module(name, path, **names):
    m = types.ModuleType(name)
    m.__dict__.update(names)
    sys.modules[name] = m
    if path:
        exec(compile(open(path).read(), path, "exec"), m.__dict__)
    return m


def main():
    notes = sys.argv[1] + "/domainbed/benchmark_notes/"
    package = module("benchmark_notes", None)
    utils = module("benchmark_notes.utils", notes + "utils.py")
    package.nethook = module("benchmark_notes.nethook", None)
    module("benchmark_notes.instr_state", None, kl_grad=None)
    coverage = module("benchmark_notes.coverage", notes + "coverage.py")
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
    names = {"float32": "F32", "uint8": "U8"}
    header, data = {"__metadata__": meta}, b""
    for name, t in sorted(out.items()):
        raw = np.ascontiguousarray(t).tobytes()
        header[name] = {"dtype": names[str(t.dtype)], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open("coverage/testdata/nacme.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


main()
