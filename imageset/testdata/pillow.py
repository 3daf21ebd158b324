"""Writes what Pillow decodes, for TestPillow.

    python3 -m venv venv && venv/bin/pip install pillow
    venv/bin/python imageset/testdata/pillow.py FOLDER... > manifest.txt
    NAC_PILLOW=$PWD/manifest.txt go test -run TestPillow ./imageset

Paths are written as given, so FOLDER should be absolute; the manifest of testdata/pillow
is made within it, with FOLDER ".".

One line a file: CRC-32 of the RGB bytes, width, height, path; or "error - - path".
"""
import os, sys, warnings, zlib
from PIL import Image

warnings.simplefilter("ignore")
for top in sys.argv[1:]:
    for folder, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if path.lower().endswith((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")):
                try:
                    with Image.open(path) as f:
                        im = f.convert("RGB")
                    print(zlib.crc32(im.tobytes()), *im.size, path)
                except Exception:
                    print("error - -", path)
