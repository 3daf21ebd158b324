#!/bin/sh
# The tables of docs/results-cifar10.md.
#
#   bench/cifar10/run.sh DATA OUT
#
# DATA is laid out as OpenOOD lays it out, with checkpoints/resnet20-12fca82f.th and
# checkpoints/resnet32-d509ac18.th (akamaster/pytorch_resnet_cifar10). Each network is
# run twice: with nac fitted on main_train_cifar10, as the reference fits it, and with all
# detectors fitted on main_train_cifar10 and sub_train_cifar10 together, as its
# baselines were.
set -eu
data=$(cd "$1" && pwd) out=$2
both=$out/both
mkdir -p "$both/benchmark_imglist/cifar10"
ln -sfn "$data/images_classic" "$both/images_classic"
for list in test_cifar10 test_mnist test_texture test_tin val_cifar10 val_tin; do
    cp "$data/benchmark_imglist/cifar10/$list.txt" "$both/benchmark_imglist/cifar10/"
done
cat "$data/benchmark_imglist/cifar10/main_train_cifar10.txt" "$data/benchmark_imglist/cifar10/sub_train_cifar10.txt" \
    > "$both/benchmark_imglist/cifar10/main_train_cifar10.txt"
for network in resnet20-12fca82f resnet32-d509ac18; do
    arch=${network%-*}
    run() {
        ${NAC:-go run ./cmd/nac} bench cifar10 --arch "$arch" --checkpoint "$data/checkpoints/$network.th" \
            --normalize imagenet --layers avgpool,layer3,layer2,layer1 --cache off --quiet "$@"
    }
    run --data "$data" --detectors nac --out "$out/$arch-nac" > "$out/$arch-nac.txt"
    run --data "$both" --images 2000 --detectors all --out "$out/$arch" > "$out/$arch.txt"
done
