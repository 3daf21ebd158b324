"""Image folders and lists for the further networks of docs/nac-auto.md.

    python networks.py DATA OUT    needs numpy and pillow

DATA holds mnist/, fashion-mnist/, notmnist/ (idx.gz files) and, as OpenOOD lays
them out, images_classic/, images_dg/ and benchmark_imglist/. Each network knows seven of ten
classes; the three others are near-OOD. OUT/NAME gets train.txt, valid.txt (for
training's own curves), fit.txt (2,000 of the training images), id.txt and near.txt;
OUT/images the images of idx files as PNG; OUT/far lists that serve several networks.
Images are taken in their original order, none by hand.
"""
import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image

data, out = Path(sys.argv[1]), Path(sys.argv[2])


def idx(name, part):
    """The (path, label) pairs of an idx file, its images written once."""
    def read(kind, head):
        raw = gzip.open(data / name / f"{part}-{kind}-ubyte.gz").read()
        return np.frombuffer(raw, np.uint8, offset=head)

    images, labels = read("images-idx3", 16).reshape(-1, 28, 28), read("labels-idx1", 8)
    folder = out / "images" / name / part
    pairs = []
    for i, (image, label) in enumerate(zip(images, labels)):
        path = folder / str(i // 1000) / f"{i:05}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        pairs.append((path, int(label)))
    return pairs


def listed(*names, of="cifar10", images="images_classic"):
    lines = [l.rsplit(None, 1) for n in names for l in open(data / "benchmark_imglist" / of / f"{n}.txt") if l.strip()]
    return [((data / images / p).resolve(), int(label)) for p, label in lines]


def write(path, pairs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{p.resolve()} {label}\n" for p, label in pairs))


def network(name, known, train, rest):
    """Training images from train, ID and near-OOD images from rest; known are the labels known."""
    def ids(pairs):
        return [(p, known.index(l)) for p, l in pairs if l in known]

    t, r = ids(train), ids(rest)
    write(out / name / "train.txt", t)
    write(out / name / "fit.txt", t[:2000])
    write(out / name / "valid.txt", r[:500])
    write(out / name / "id.txt", r[500:2500])
    write(out / name / "near.txt", [(p, -1) for p, l in rest if l not in known][:2000])


mnist, letters, clothes = idx("mnist", "train"), idx("notmnist", "t10k"), idx("fashion-mnist", "t10k")
network("mnist_low", [0, 1, 2, 3, 4, 5, 6], mnist[:30000], mnist[50000:])
network("letters", [0, 1, 2, 3, 4, 5, 6], letters[:7500], letters[7500:])
network("mnist_high", [3, 4, 5, 6, 7, 8, 9], mnist[:30000], mnist[50000:])
network("clothes", [3, 4, 5, 6, 7, 8, 9], clothes[:7500], clothes[7500:])
network("cifar", [0, 1, 2, 3, 4, 5, 6], listed("test_cifar10"), listed("val_cifar10", "main_train_cifar10", "sub_train_cifar10"))
for name, pairs in {"digits": mnist[40000:42000], "letters": letters[7500:9500], "clothes": clothes[7500:9500]}.items():
    write(out / "far" / f"{name}.txt", [(p, -1) for p, _ in pairs])
for name in ["val_cifar10", "val_tin", "test_texture"]:
    write(out / "far" / f"{name}.txt", [(p, -1) for p, _ in listed(name)])
for name in ["sketch", "photo"]:
    write(out / "far" / f"{name}.txt", [(p, -1) for p, _ in listed(name, of="pacs", images="images_dg")])
