#!/bin/sh
# The tables of docs/results-imagenet.md.
#
#   bench/imagenet/run.sh DATA CHECKPOINT OUT
#
# DATA is laid out as OpenOOD lays it out, with test_imagenet_sample.txt (one image of
# every third class) and test_textures.txt among the lists. Half of the sample is
# fitted on and the other half tested, then the other way round, so that each image is
# tested once. Left out are detectors that cannot be fitted on 167 images of as many
# classes: vim, residual and nac_fusion (fewer images than features), openmax (one
# image of a class), temp_scaling, klm, react and adascale (no validation images); and gram,
# gram_newer, mds_ensemble and mds_layers, which model classes of which there is one image.
set -eu
data=$(cd "$1" && pwd) checkpoint=$2 out=$3
sample=$data/benchmark_imglist/imagenet/test_imagenet_sample.txt
detectors=nac,nac_auto,ash,ash_p,ash_s,dice,ebo,entropy,fdbd,gen,gradnorm,iodin,knn,mds,mls,msp,nci,nnguide,odin,opengan,rankfeat,relation,rmds,scale,she,vra
for half in 0 1; do
    dir=$out/data$half
    mkdir -p "$dir/benchmark_imglist/imagenet"
    ln -sfn "$data/images_classic" "$dir/images_classic"
    ln -sfn "$data/images_largescale" "$dir/images_largescale"
    awk -v h=$half 'NR % 2 == h' "$sample" > "$dir/benchmark_imglist/imagenet/test_imagenet.txt"
    awk -v h=$half 'NR % 2 != h' "$sample" > "$dir/benchmark_imglist/imagenet/main_train_imagenet.txt"
    head -n 8 "$sample" > "$dir/benchmark_imglist/imagenet/val_imagenet.txt" # must be there, nothing is fitted on it
    cp "$data/benchmark_imglist/imagenet/test_textures.txt" "$dir/benchmark_imglist/imagenet/"
    # TensorFlow's normalisation: (x - 128) / 128.
    ${NAC:-go run ./cmd/nac} bench imagenet --arch mobilenet_v2_same --checkpoint "$checkpoint" --data "$dir" \
        --mean 0.50196078,0.50196078,0.50196078 --std 0.50196078,0.50196078,0.50196078 \
        --layers avgpool,features.18,features.13,features.6 --alpha 3000 --M 50 --O 10 \
        --images 167 --cache off --detectors $detectors --out "$out/half$half"
done
