"""Tables of detectors that need more than a feature, by the reference's own classes.

    python reference.py --reference CHECKOUT --data DIR --checkpoint resnet20-12fca82f.th --blocks 3 --out FILE

CHECKOUT is one of BierOne/ood_coverage, whose classes of ODIN, the Mahalanobis ensemble,
RankFeat and Gram are run; DIR is laid out as OpenOOD does. Fitted on main_train_cifar10
and sub_train_cifar10, as the reference's baselines were, scored on all images of the
lists; FPR@95 has OOD as the positive class. All figures in percent.

What the classes do not know of a network of 64 features and three stages:
- The list of features is the stem, the stages, and the last one pooled: Gram, which counts
  five features, is told of four; RankFeat's blocks are the last and the one before.
- ODIN divides by the std that the images were normalised with, not by that of
  the data set's name.
About 15 minutes on a core. Needs torch, numpy, scikit-learn, scipy, pillow.
"""

import argparse
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import torch
from sklearn.metrics import auc, roc_curve
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from float64 import MEAN, STD, ResNet, read  # noqa: E402

LISTS = {"train": ["main_train_cifar10", "sub_train_cifar10"], "val": ["val_cifar10"], "test": ["test_cifar10"]}
OOD = ["tin", "mnist", "texture"]
BATCH = 128


class Net(ResNet):
    """The network with what OpenOOD's classes ask of one."""

    def features(self, x):
        stem = F.relu(self.bn1(self.conv1(x)))
        one = self.layer1(stem)
        two = self.layer2(one)
        return [stem, one, two, self.layer3(two)]

    def forward(self, x, return_feature=False, return_feature_list=False):
        stages = self.features(x)
        pooled = self.avgpool(stages[-1])
        feature = pooled.flatten(1)
        logits = self.linear(feature)
        if return_feature_list:
            return logits, stages[:-1] + [pooled]
        return (logits, feature) if return_feature else logits

    def fc(self, x):
        return self.linear(x)

    # RankFeat's blocks 4 and 3 are the last stage and the one before.
    def intermediate_forward(self, x, layer_index):
        return self.features(x)[layer_index - 1]

    def layer4(self, x):
        return self.layer3(x)


class Classes:
    """Loads single files of a checkout, without the package around them."""

    def __init__(self, checkout, name):
        self.root, self.name = pathlib.Path(checkout) / "openood", name
        package = types.ModuleType(name)
        package.__path__ = [str(self.root / "postprocessors")]
        sys.modules[name] = package
        base = types.ModuleType(name + ".base_postprocessor")

        class BasePostprocessor:
            def __init__(self, config):
                self.config = config

        base.BasePostprocessor = BasePostprocessor
        sys.modules[base.__name__] = base
        transform = types.ModuleType("openood.preprocessors.transform")
        transform.normalization_dict = {"cifar10": [MEAN, STD]}
        for module in ("openood", "openood.preprocessors"):
            sys.modules.setdefault(module, types.ModuleType(module))
        sys.modules[transform.__name__] = transform

    def load(self, path, edit=lambda source: source):
        name = self.name + "." + pathlib.Path(path).stem
        spec = importlib.util.spec_from_file_location(name, self.root / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        source = (self.root / path).read_text()
        exec(compile(edit(source), str(self.root / path), "exec"), module.__dict__)
        return module


def config(**args):
    return types.SimpleNamespace(
        dataset=types.SimpleNamespace(name="cifar10"),
        postprocessor=types.SimpleNamespace(
            postprocessor_args=types.SimpleNamespace(**args), postprocessor_sweep=None),
    )


def methods(checkout):
    sys.modules["tqdm"] = types.SimpleNamespace(tqdm=lambda it, **_: it)
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.cuda.FloatTensor = torch.FloatTensor
    old = Classes(checkout, "reference_classes")

    def four(source):
        # "num_layer = 5  # 4 for lenet"
        assert source.count("num_layer = 5") == 2
        return source.replace("num_layer = 5", "num_layer = 4")

    yield "odin", old.load("postprocessors/odin_postprocessor.py").ODINPostprocessor(config(temperature=1000, noise=0.0014))
    yield "mds_ensemble", old.load("postprocessors/mds_ensemble_postprocessor.py").MDSEnsemblePostprocessor(
        config(noise=0.0014, feature_type_list=["mean"], alpha_list=[1], reduce_dim_list=["none"]))
    yield "rankfeat", old.load("postprocessors/rankfeat_postprocessor.py").RankFeatPostprocessor(
        config(accelerate=False, temperature=1))
    yield "gram", old.load("postprocessors/gram_postprocessor.py", four).GRAMPostprocessor(config(powers=[1, 2, 3, 4, 5]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--blocks", type=int, default=3, help="of a stage: 3 for ResNet-20, 5 for ResNet-32")
    parser.add_argument("--only", help="keys, with commas between")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)

    weights = torch.load(args.checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    net = Net(args.blocks)
    net.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    net.eval()

    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))

    def batches(lists):
        pixels = np.concatenate([read(args.data, name) for name in lists])
        labels = [int(line.rsplit(" ", 1)[1]) for name in lists
                  for line in (args.data / f"benchmark_imglist/cifar10/{name}.txt").read_text().splitlines()]
        out = []
        for i in range(0, len(pixels), BATCH):
            images = (torch.from_numpy(pixels[i:i + BATCH]).float() / 255 - mean) / std
            out.append({"data": images, "data_aux": images, "label": torch.tensor(labels[i:i + BATCH])})
        return out

    sets = {name: batches(lists) for name, lists in LISTS.items()}
    sets.update({name: batches(["test_" + name]) for name in OOD})
    rows = {}
    for key, p in methods(args.reference):
        if args.only and key not in args.only.split(","):
            continue
        if hasattr(p, "setup"):
            p.setup(net, {"train": sets["train"], "val": sets["val"]}, None)

        def scores(name):
            return np.concatenate([
                p.postprocess(net, batch["data"].clone())[1].detach().numpy().reshape(-1) for batch in sets[name]])

        inside, rows[key] = scores("test"), {}
        for name in OOD:
            outside = scores(name)
            labels = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
            fpr, tpr, _ = roc_curve(labels, -np.concatenate([inside, outside]))
            rows[key][name] = [round(100 * float(v), 3) for v in (fpr[np.argmax(tpr >= 0.95)], auc(fpr, tpr))]
        print(key, rows[key], flush=True)
        pathlib.Path(args.out).write_text(json.dumps({"columns": ["FPR@95", "AUROC"], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
