"""Trains the quickstart's network on eight of the ten Fashion-MNIST classes.

    python train.py --data /usr/share/datasets/fashion-mnist --out resnet20.safetensors

Classes 8 (bag) and 9 (ankle boot) are never seen: they are the near-OOD images
of the quickstart. They are simply the last two, fixed before any training.
"""

import argparse
import gzip
import os
import time

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from network import ResNet20, load_checkpoint, save_checkpoint

CLASSES = 8


def read_idx(path):
    with gzip.open(path) as f:
        data = f.read()
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def known_classes(folder, split):
    """The images of classes 0 to 7 as uint8 [N,32,32], and their labels.

    28x28 becomes 32x32 with Pillow's bilinear filter, as the CIFAR transform
    of nac does it when the images are read.
    """
    images = read_idx(os.path.join(folder, f"{split}-images-idx3-ubyte.gz"))
    labels = read_idx(os.path.join(folder, f"{split}-labels-idx1-ubyte.gz"))
    keep = labels < CLASSES
    resized = [
        np.asarray(Image.fromarray(i).resize((32, 32), Image.BILINEAR)) for i in images[keep]
    ]
    return np.stack(resized), labels[keep].astype(np.int64)


def normalise(images, mean, std):
    x = (torch.from_numpy(images).float() / 255 - mean) / std
    return x[:, None].expand(-1, 3, -1, -1)


def augment(x, random):
    """Shifts each image by up to two pixels each way and flips half of them."""
    n, side = len(x), x.shape[2]
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    dy = torch.randint(0, 5, (n, 1), generator=random)
    dx = torch.randint(0, 5, (n, 1), generator=random)
    flip = torch.rand(n, 1, generator=random) < 0.5
    row = dy + torch.arange(side)
    column = torch.where(flip, dx + torch.arange(side).flip(0), dx + torch.arange(side))
    index = torch.arange(n)[:, None, None]
    return padded[:, 0][index, row[:, :, None], column[:, None, :]][:, None].expand(-1, 3, -1, -1)


def accuracy(network, images, labels, mean, std):
    right = 0
    with torch.no_grad():
        for i in range(0, len(images), 250):
            logits = network(normalise(images[i : i + 250], mean, std))
            right += int((logits.argmax(1).numpy() == labels[i : i + 250]).sum())
    return right / len(images)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with the four idx.gz files")
    parser.add_argument("--out", required=True, help="safetensors file to write")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1, help="peak of the one-cycle schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="stop early, to time a step")
    args = parser.parse_args()

    # One thread and deterministic kernels: the same machine gives the same weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    random = torch.Generator().manual_seed(args.seed)

    images, labels = known_classes(args.data, "train")
    mean = round(float(images.mean() / 255), 4)
    std = round(float(images.std() / 255), 4)
    print(f"{len(images)} training images, mean {mean}, std {std}", flush=True)

    network = ResNet20(CLASSES)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=args.lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    per_epoch = len(images) // args.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, args.lr, total_steps=args.epochs * per_epoch, pct_start=0.25, cycle_momentum=False
    )
    targets = torch.from_numpy(labels)
    began, step, total, right = time.time(), 0, 0.0, 0
    for epoch in range(args.epochs):
        order = torch.randperm(len(images), generator=random)
        for batch in order[: per_epoch * args.batch].split(args.batch):
            x = augment(normalise(images[batch.numpy()], mean, std), random)
            logits = network(x)
            loss = F.cross_entropy(logits, targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            total += loss.item()
            right += int((logits.argmax(1) == targets[batch]).sum())
            if step % 25 == 0:
                print(
                    f"epoch {epoch + 1} step {step}/{args.epochs * per_epoch}"
                    f" loss {total / 25:.4f} accuracy {right / 25 / args.batch:.4f}"
                    f" {time.time() - began:.0f} s",
                    flush=True,
                )
                total, right = 0.0, 0
            if step == args.steps:
                return

    network.eval()
    test_images, test_labels = known_classes(args.data, "t10k")
    float32 = accuracy(network, test_images, test_labels, mean, std)
    save_checkpoint(
        args.out,
        network,
        {
            "arch": "resnet20",
            "classes": "tshirt trouser pullover dress coat sandal shirt sneaker",
            "mean": mean,
            "std": std,
            "epochs": args.epochs,
            "batch": args.batch,
            "lr": args.lr,
            "seed": args.seed,
            "torch": torch.__version__,
        },
    )
    with open(args.out, "rb") as f:
        saved, _ = load_checkpoint(f.read())
    print(
        f"test accuracy over {len(test_images)} images: {float32:.4%} as trained,"
        f" {accuracy(saved, test_images, test_labels, mean, std):.4%} as saved;"
        f" {time.time() - began:.0f} s, {os.path.getsize(args.out)} bytes"
    )


if __name__ == "__main__":
    main()
