"""Times the NAC reference's cached parameter search against "nac search" on the same states.

    git clone https://github.com/BierOne/ood_coverage
    nac states cifar10 --checkpoint best.ckpt --data data --sets search --cache c10.states
    pip install torch scikit-learn pyyaml tqdm safetensors
    python compare.py ood_coverage c10.states --nac ./nac

The reference's own code does its part: its NAC post-processor sets each combination of its sweep,
builds or reloads the coverage, scores validation ID, validation OOD and the training images set
aside, and computes its metrics, as its Evaluator.hyperparam_search does with --use_cache. Both
use all processors; reading the states is in nac's time and not in the reference's.

    python compare.py ood_coverage --made ../../search/testdata/reference_sweep.json

writes the AUROCs that the reference's code finds for made states, which search's
TestReferenceSweep compares with.
"""
import argparse, csv, importlib.util, itertools, json, os, pathlib, statistics, subprocess, sys, tempfile, time, types

import numpy as np
import torch
import yaml
from safetensors import safe_open

parser = argparse.ArgumentParser()
parser.add_argument("reference", type=pathlib.Path)
parser.add_argument("cache", type=pathlib.Path, nargs="?")
parser.add_argument("--made", type=pathlib.Path, help="file for the AUROCs of made states; no cache is read")
parser.add_argument("--nac", default="nac")
parser.add_argument("--space", default="cifar10", help="cifar10, cifar100, imagenet-resnet50 or imagenet-vit-b-16")
parser.add_argument("--combinations", type=int, default=0, help="time only that many of the reference's; 0: all")
args = parser.parse_args()
if (args.cache is None) == (args.made is None):
    parser.error("give a cache or --made")

SETTINGS = {
    "cifar10": "resnet/nac_cifar10.yml", "cifar100": "resnet/nac_cifar100.yml",
    "imagenet-resnet50": "resnet/nac_imagenet.yml", "imagenet-vit-b-16": "vit/nac_imagenet.yml",
}


def reference_module(name):
    """Imports a module of the checkout without the packages around it, which need far more."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        package = ".".join(parts[:i])
        if package not in sys.modules:
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [str(args.reference.joinpath(*parts[:i]))]
    return importlib.import_module(name)


comm = types.ModuleType("openood.utils.comm")  # of distributed training
for package in ("openood", "openood.utils"):
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [str(args.reference / package.replace(".", "/"))]
sys.modules["openood.utils.comm"] = comm
sys.modules["openood.utils"].comm = comm
NACPostprocessor = reference_module("openood.postprocessors.nac_postprocessor").NACPostprocessor
compute_all_metrics = reference_module("openood.evaluators.metrics").compute_all_metrics

config = yaml.safe_load((args.reference / "configs/postprocessors/nac" / SETTINGS[args.space]).read_text())["postprocessor"]
layers = list(config["layer_kwargs"])


MADE = {  # layer: neurons, greatest activation, greatest gradient
    "avgpool": (64, 1, 0.05), "layer3": (64, 1, 0.005), "layer2": (32, 100, 50), "layer1": (16, 100, 30),
}


def made(name, images=500):
    """A set of made states; those of val_ood are larger."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "arch"))
    from check import uniform
    columns = {"labels": torch.zeros(images), "predictions": torch.zeros(images), "correct": torch.ones(images, dtype=torch.bool)}
    more = 1.25 if name == "val_ood" else 1
    for layer, (neurons, z, g) in MADE.items():
        u = uniform(f"sweep.{name}.{layer}.z", images * neurons)
        s = 2 * uniform(f"sweep.{name}.{layer}.g", images * neurons) - 1
        for kind, v in ("z", u * u * (z * more)), ("g", s * s * s * (g * more)):
            columns[f"{layer}.{kind}"] = torch.from_numpy(v.astype(np.float32).reshape(images, neurons))
    return columns


def cached(name):
    columns = {}
    for shard in sorted((args.cache / name).glob("*.safetensors")):
        with safe_open(shard, "pt") as f:
            for key in f.keys():
                columns.setdefault(key, []).append(f.get_tensor(key))
    return {k: torch.cat(v) for k, v in columns.items()}


def loader(name, batch=128):
    """A set as the reference's craft_loader gives it: per layer a list of chunks."""
    columns = made(name) if args.made else cached(name)
    chunks = max(len(columns["labels"]) // batch, 1)
    out = {"labels": columns["labels"].numpy(), "preds": columns["predictions"].numpy()}
    for layer in layers:
        out[layer] = list(zip(columns[layer + ".z"].chunk(chunks), columns["correct"].chunk(chunks), columns[layer + ".g"].chunk(chunks)))
    return out


def reference_search():
    """Returns seconds and {choices: AUROC in percent}."""
    box = types.SimpleNamespace
    p = NACPostprocessor(box(postprocessor=box(
        APS_mode=True, postprocessor_args=box(test_method="avg", layer_names=layers, valid_num=1000),
        layer_kwargs={k: dict(v) for k, v in config["layer_kwargs"].items()}, postprocessor_sweep=config["postprocessor_sweep"])))
    data = {name: loader(name) for name in ("train", "sub_train", "val", "val_ood")}
    p.use_cache, p.nac_dataloader = True, data["train"]
    p.ln_to_aka = p.aka_to_ln = {l: l for l in layers}
    p.layer_size_dict = {l: data["train"][l][0][0].shape[1] for l in layers}
    p.save_dir = tempfile.mkdtemp(prefix="coverage-cache-")
    lists = [config["postprocessor_sweep"][l][k] for l in layers for k in ("O", "M", "sig_alpha", "method")]
    combinations = [list(reversed(c)) for c in itertools.product(*reversed(lists))]  # the first varies fastest
    all_of_them = len(combinations)
    if args.combinations:
        combinations = combinations[:args.combinations]
    outcomes = {}
    out, sys.stdout = sys.stdout, open(os.devnull, "w")  # it prints every combination
    begin = time.perf_counter()
    with torch.no_grad():
        for c in combinations:
            p.set_hyperparam(list(c))
            p.build_nac(None, reload=True, prefix=args.space)
            id_pred, id_conf, id_label = p.inference(None, data["val"], progress=False)
            for name in ("val_ood", "sub_train"):
                pred, conf, label = p.inference(None, data[name], progress=False)
                label = -1 * np.ones_like(label)
                fpr, auroc = compute_all_metrics(
                    np.concatenate([id_conf, conf]), np.concatenate([id_label, label]), np.concatenate([id_pred, pred]))[:2]
                outcomes.setdefault(tuple(c), []).append((100 * auroc, 100 * fpr))
    took = time.perf_counter() - begin
    sys.stdout = out
    return took * all_of_them / len(combinations), outcomes


def nac_search():
    """Returns the seconds of several whole runs of the program, and {choices: AUROCs and FPRs}."""
    with tempfile.TemporaryDirectory() as out:
        command = [args.nac, "search", str(args.cache), "--space", args.space, "--quiet"]
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begin)
        subprocess.run(command + ["--out", out], check=True, stdout=subprocess.DEVNULL)
        outcomes = {}
        for row in csv.DictReader(open(os.path.join(out, "search.csv"))):
            key = tuple(v for l in layers for v in (int(row[l + " O"]), int(row[l + " M"]), float(row[l + " alpha"]), row[l + " func"]))
            outcomes[key] = [(float(row["auroc_percent"]), float(row["fpr95_percent"])), (float(row["train_auroc_percent"]), float(row["train_fpr95_percent"]))]
    return times, outcomes


theirs_time, theirs = reference_search()
if args.made:
    # In the reference's order: the first layer's O varies fastest.
    rows = {"auroc": 0, "train_auroc": 1}
    args.made.write_text(json.dumps({k: [round(float(v[i][0]), 4) for v in theirs.values()] for k, i in rows.items()}) + "\n")
    sys.exit()
ours_times, ours = nac_search()
ours_time = statistics.median(ours_times)
worst = [max(abs(x[i] - y[i]) for k, v in theirs.items() for x, y in zip(v, ours[k])) for i in (0, 1)]
print(json.dumps({
    "space": args.space, "combinations": len(ours), "timed of the reference": len(theirs), "torch": torch.__version__, "threads": torch.get_num_threads(),
    "reference seconds": round(theirs_time, 2), "nac seconds": round(ours_time, 4), "nac slowest": round(max(ours_times), 4),
    "times as fast": round(theirs_time / ours_time, 1),
    "largest difference of AUROC in points": round(worst[0], 5), "of FPR@95": round(worst[1], 5),
    "same winner": max(theirs, key=lambda k: theirs[k][0][0]) == max(theirs, key=lambda k: ours[k][0][0]),
}, indent=1))
