"""Fusion rules compared on scores that compare wrote: AUROC of near / far-OOD, in percent.

    python fusion.py SCORES.safetensors...    needs numpy, scipy, safetensors

Near are sets named near or val_tin*, far the mean over the others. A rule sees the
scores of training images held out of the parts' fitting (the set held) and no OOD.
"""
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.stats import norm, rankdata


def auroc(id_, ood):
    r = rankdata(np.concatenate([id_, ood]))
    n, m = len(id_), len(ood)
    return 100 * (r[:n].sum() - n * (n + 1) / 2) / (n * m)


class Network:
    def __init__(self, path):
        self.name = Path(path).stem
        f = load_file(path)
        f.pop("held.index", None)
        self.scores = {}
        for k, v in f.items():
            s, key = k.rsplit(".", 1)
            self.scores.setdefault(key, {})[s] = v
        sets = self.scores["ebo"]
        self.sets = [s for s in sets if s not in ("held", "id")]
        self.near = [s for s in self.sets if s == "near"] or [s for s in self.sets if s == "val_tin"]
        self.far = [s for s in self.sets if s not in self.near]

    def result(self, score):
        """AUROC near and far of score(set)."""
        id_ = score("id")
        return tuple(np.mean([auroc(id_, score(s)) for s in sets]) for sets in (self.near, self.far))

    def z(self, key, s):
        h = self.scores[key]["held"]
        return (self.scores[key][s] - h.mean()) / h.std()

    def zs(self, keys, s):
        return np.stack([self.z(k, s) for k in keys], 1)


def plain(n, keys):
    return lambda s: n.zs(keys, s).sum(1)


def gauss(n, keys):
    """Normal quantiles of the share of held-out images below; a normal's tail beyond them."""
    def g(k):
        h = np.sort(n.scores[k]["held"])
        m = len(h)
        q = norm.ppf((np.arange(m) + 0.5) / m)
        # beyond the range: linear in the standardised score
        mu, sd = h.mean(), h.std()
        def f(x):
            y = np.interp(x, h, q)
            lo, hi = x < h[0], x > h[-1]
            y[lo] = q[0] + (x[lo] - h[0]) / sd
            y[hi] = q[-1] + (x[hi] - h[-1]) / sd
            return y
        return f
    fs = {k: g(k) for k in keys}
    return lambda s: sum(fs[k](n.scores[k][s]) for k in keys)


def white(power=1):
    """Sum of scores whitened (symmetric) by their correlation over held-out images."""
    def rule(n, keys):
        h = n.zs(keys, "held")
        w, v = np.linalg.eigh(np.corrcoef(h.T))
        w = np.maximum(w, 1e-6)
        m = v @ np.diag(w ** (-power / 2)) @ v.T
        return lambda s: (n.zs(keys, s) @ m).sum(1)
    return rule


def pnorm(p):
    """-(sum of max(-z, 0)^p)^(1/p), plus the plain sum where none is below the mean."""
    return lambda n, keys: lambda s: -(np.maximum(-n.zs(keys, s), 0) ** p).sum(1) ** (1 / p)


def signedpow(p):
    def rule(n, keys):
        def f(s):
            z = n.zs(keys, s)
            return (np.sign(z) * abs(z) ** p).sum(1)
        return f
    return rule


def squares(n, keys):
    """Squares of what is below the mean, linear above."""
    def f(s):
        z = n.zs(keys, s)
        return np.where(z < 0, -z * z, z).sum(1)
    return f


def logsumexp(n, keys):
    return lambda s: -np.logaddexp.reduce(-n.zs(keys, s), axis=1)


def hotelling(n, keys):
    h = n.zs(keys, "held")
    p = np.linalg.inv(np.cov(h.T))
    return lambda s: -np.einsum("ij,jk,ik->i", n.zs(keys, s), p, n.zs(keys, s))


def onesided(n, keys):
    """Hotelling of what lies below the mean."""
    h = n.zs(keys, "held")
    p = np.linalg.inv(np.cov(h.T))
    def f(s):
        z = np.minimum(n.zs(keys, s), 0)
        return -np.einsum("ij,jk,ik->i", z, p, z)
    return f


def tail(rule, extra, q=0.0):
    """rule over keys, plus what each extra has below the held-out images' quantile q (its minimum for 0), in standard deviations."""
    def made(n, keys):
        base = rule(n, keys)
        def f(s):
            y = base(s).copy()
            for k in extra:
                z = n.z(k, s)
                y += np.minimum(z - np.quantile(n.z(k, "held"), q), 0)
            return y
        return f
    return made


def main(paths):
    nets = [Network(p) for p in paths]
    print("rule".ljust(44), "  ".join(n.name.rjust(13) for n in nets))
    def line(name, rule, keys):
        r = [n.result(rule(n, keys)) for n in nets]
        print(name.ljust(44), "  ".join(f"{a:5.1f} / {b:5.1f}" for a, b in r), flush=True)
    keys = [k for k in nets[0].scores if all(k in n.scores for n in nets)]
    for k in keys:
        line(k, plain, [k])
    base = ["nac_auto", "vim", "ebo", "rmds"]
    for parts in [base, base + ["mds"], base + ["residual"], base + ["knn"], base + ["mds_layers"], base[1:] + ["mds_layers"], base[2:] + ["mds_layers"]]:
        print("--", "+".join(parts))
        for name, rule in {"plain": plain, "gauss": gauss, "white": white(), "white half": white(0.5), "p2": pnorm(2), "p4": pnorm(4), "signed 1.5": signedpow(1.5), "signed 2": signedpow(2),
                           "squares": squares, "lse": logsumexp, "hotelling": hotelling, "onesided": onesided,
                           "tail mds": tail(plain, ["mds"]), "tail mds 1%": tail(plain, ["mds"], .01), "tail mds 5%": tail(plain, ["mds"], .05)}.items():
            line("  " + name, rule, parts)


if __name__ == "__main__":
    main(sys.argv[1:])
