"""Writes detector/testdata/mds_layers.json: mds_layers on made activations, by scikit-learn's OAS.

    python golden.py > ../../detector/testdata/mds_layers.json    needs numpy, scikit-learn

The feature is a layer too (twice as large), and takes no part. One neuron never varies over
training images. Class 2 of 4 has none.
"""
import json

import numpy as np
from sklearn.covariance import OAS

r = np.random.default_rng(5)
n, m, classes = 60, 12, 4
label = r.choice([0, 1, 3], n)


def layer(width, spread, of):
    means = np.random.default_rng(width).normal(0, 2, (classes, width))
    mix = np.random.default_rng(width + 1).normal(0, 1, (width, width))
    return spread * (3 + means[of] + r.normal(0, 1, (len(of), width)) @ mix)


def images(of):
    early, late, feature = layer(5, 40, of), layer(4, 0.5, of), layer(3, 1, of)
    late[:, 2] = 1.25
    return {k: v.astype(np.float32) for k, v in {"early": early, "late": late, "feature": feature}.items()}


train, other = images(label), images(r.integers(0, classes, m))
other["late"][6:, 2] = 1.5
other["early"][3] *= 4
x, y = [np.concatenate([s["early"], s["late"]], 1).astype(float) for s in (train, other)]
means = np.stack([x[label == k].mean(0) for k in (0, 1, 3)])
within = x - means[np.searchsorted([0, 1, 3], label)]
scale = np.concatenate([np.full(w.shape[1], np.sqrt((w**2).mean())) for w in (within[:, :5], within[:, 5:])])
precision = np.linalg.inv(OAS(assume_centered=True).fit(within / scale).covariance_)
away = (y[:, None] - means[None]) / scale
score = -np.einsum("ikj,jl,ikl->ik", away, precision, away).min(1)
print(json.dumps({"classes": classes, "labels": label.tolist(), "score": score.tolist(),
                  "train": {k: v.ravel().tolist() for k, v in train.items()},
                  "images": {k: v.ravel().tolist() for k, v in other.items()}}))
