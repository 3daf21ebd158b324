#!/usr/bin/env bash
# Installs what rebuilding the quickstart needs, from Debian's own packages
# (Debian 12: PyTorch 1.13, Pillow 9.4, scikit-learn 1.2). Needs root.
set -euo pipefail
apt-get update
apt-get install -y --no-install-recommends \
  python3-torch python3-numpy python3-pil python3-sklearn dataset-fashion-mnist
