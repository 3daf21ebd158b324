#!/usr/bin/env bash
# Makes the Python environment that bench/peer measures nac against.
#
#   bench/peer/setup.sh            into bench/peer/.venv, or $NAC_PEER_VENV
#
# PIP_INDEX_URL=https://download.pytorch.org/whl/cpu with
# PIP_EXTRA_INDEX_URL=https://pypi.org/simple spares the 3 GB of CUDA libraries
# that PyPI's build of PyTorch brings along; nothing here uses them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=${NAC_PEER_VENV:-.venv}
python3 -m venv "$venv"
"$venv/bin/pip" install -r requirements.txt
