#!/bin/sh
# The further networks of docs/nac-auto.md: trains them and prints their tables.
#
#   bench/nac-auto/networks.sh DATA OUT
#
# For DATA and the lists see networks.py. The two on mnist served to choose the rule of
# nac_fusion, the four others to try it once.
set -eu
data=$(cd "$1" && pwd) out=$2
${PYTHON:-python3} "$(dirname "$0")/networks.py" "$data" "$out"
go build -o "$out/nac" ./cmd/nac
go build -o "$out/extract" ./bench/nac-auto/extract
go build -o "$out/compare" ./bench/nac-auto/compare
cd "$out"
train() { # NAME ARCH FLAGS...
    name=$1 arch=$2
    shift 2
    ./nac train --arch "$arch" --list "$name/train.txt" --data / --valid "$name/valid.txt" --out "trained/$name" --quiet "$@"
}
extract() { # NAME ARCH SIZE FLAGS AND FAR LISTS...
    name=$1 arch=$2 size=$3
    shift 3
    mkdir -p "states/$name"
    ./extract -arch "$arch" -checkpoint "trained/$name/model.safetensors" -images / -resize "$size" \
        -mean 0.4914,0.4822,0.4465 -std 0.2470,0.2435,0.2616 -out "states/$name" "$@"
}
compare() { # NAME LAYERS FAR FLAGS...
    name=$1 layers=$2 far=$3
    shift 3
    echo "$name"
    ./compare -in "states/$name" -layers "$layers" -spread -train fit -val id -id id -near near -far "$far" "$@"
}
resnet=avgpool,layer3,layer2,layer1 lenet=relu,block3,block2,block1

train mnist_low resnet20 --augment none --epochs 3 --lr 0.1 --seed 1
train mnist_high lenet --augment none --epochs 6 --lr 0.05 --seed 3
kinds=far.shuffle,far.noise,far.blocks,far.jigsaw,far.binary,far.tile,far.edges,far.zoom
for network in "mnist_low resnet20 32 $resnet" "mnist_high lenet 28 $lenet"; do
    set -- $network
    extract "$1" "$2" "$3" -far "$1/fit.txt" "$1/id.txt" "$1/near.txt" far/val_tin.txt far/sketch.txt far/photo.txt
    compare "$1" "$4" $kinds,val_tin,sketch,photo
    compare "$1" "$4" $kinds,val_tin,sketch,photo -scores "$1.safetensors"
done

train letters resnet20 --augment none --epochs 6 --lr 0.1 --seed 2
train clothes lenet --augment none --epochs 12 --lr 0.05 --seed 4
train cifar resnet20 --augment cifar --epochs 15 --lr 0.1 --seed 5
rm -rf clothes18 && cp -r clothes clothes18
train clothes18 resnet18_32x32 --augment none --epochs 2 --batch 64 --lr 0.03 --seed 6
for list in digits letters; do head -n 1000 far/$list.txt > far/${list}_1000.txt; done
try() { # NAME ARCH SIZE LAYERS FAR...
    name=$1 arch=$2 size=$3 layers=$4 far=
    shift 4
    for set in "$@"; do far=$far,$set; done
    extract "$name" "$arch" "$size" "$name/fit.txt" "$name/id.txt" "$name/near.txt" $(printf 'far/%s.txt ' "$@")
    compare "$name" "$layers" "${far#,}" -sets
}
try letters resnet20 32 $resnet digits clothes val_cifar10 val_tin test_texture
try clothes lenet 28 $lenet digits letters val_cifar10 val_tin test_texture
try cifar resnet20 32 $resnet digits letters clothes test_texture
try clothes18 resnet18_32x32 32 $resnet digits_1000 letters_1000 test_texture
