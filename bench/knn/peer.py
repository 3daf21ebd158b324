"""The 50th nearest of 50,000 features of 512 numbers, for 1,024 others: NumPy, PyTorch, faiss.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python peer.py
    GOMAXPROCS=1 go test ./detector -run '^$' -bench BenchmarkKNN

All are exact and compute in float32 (nac computes those near the 50th anew in float64), in
batches of 64 as a network yields them. Needs numpy, torch, faiss-cpu; those that are
not there are left out.
"""
import time

import numpy as np

IMAGES, FEATURES, QUERIES, BATCH, K = 50_000, 512, 1024, 64, 50


def unit(n, seed):
    x = np.maximum(np.random.default_rng(seed).standard_normal((n, FEATURES), dtype=np.float32), 0)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


bank, queries = unit(IMAGES, 1), unit(QUERIES, 2)


def measure(name, kth):
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        found = np.concatenate([kth(queries[i:i + BATCH]) for i in range(0, QUERIES, BATCH)])
        best = min(best, time.perf_counter() - start)
    print(f"{name}: {best / QUERIES * 1e6:.0f} us/image, mean {found.mean():.6f}", flush=True)


squares = (bank * bank).sum(1)


def with_numpy(q):
    d = squares - 2 * (q @ bank.T)
    return np.partition(d, K - 1, axis=1)[:, K - 1] + (q * q).sum(1)


measure("numpy", with_numpy)
try:
    import torch

    torch.set_num_threads(1)
    tensor = torch.from_numpy(bank)
    tensor_squares = torch.from_numpy(squares)

    def with_torch(q):
        q = torch.from_numpy(q)
        d = tensor_squares - 2 * (q @ tensor.T)
        return (d.topk(K, largest=False, dim=1).values[:, -1] + (q * q).sum(1)).numpy()

    measure("torch", with_torch)
except ImportError:
    print("torch: absent")
try:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(FEATURES)
    index.add(bank)
    measure("faiss", lambda q: index.search(q, K)[0][:, -1])
except ImportError:
    print("faiss: absent")
