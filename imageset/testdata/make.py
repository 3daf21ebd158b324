"""Makes the pictures of testdata/pillow, whose pixels the tests compare with
Pillow's: made-up colours in every way of coding that the decoder knows.

    apt-get install libjpeg-turbo-progs
    venv/bin/python imageset/testdata/make.py imageset/testdata/pillow
    cd imageset/testdata/pillow && venv/bin/python ../pillow.py . > manifest.txt
"""
import io, os, subprocess, sys
import numpy as np
from PIL import Image

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(7)


def colours(w, h, channels=3):
    y, x = np.mgrid[0:h, 0:w]
    waves = [np.sin(x / 5 + k) * 90 + np.cos(y / (3 + k) + k) * 60 + 128 for k in range(channels)]
    a = np.stack(waves, -1) + rng.normal(0, 12, (h, w, channels))
    a[h // 3 : h // 2, w // 4 : w // 2] = rng.integers(0, 256, channels)  # hard edges
    return Image.fromarray(a.clip(0, 255).astype(np.uint8), {3: "RGB", 4: "CMYK"}[channels])


def put(name, data):
    open(os.path.join(out, name), "wb").write(data)


def cjpeg(name, w, h, *args, scans=None):
    ppm = io.BytesIO()
    colours(w, h).save(ppm, "PPM")
    args = list(args)
    if scans:
        open("/tmp/scans.txt", "w").write(scans)
        args += ["-scans", "/tmp/scans.txt"]
    data = subprocess.run(["cjpeg", *args], input=ppm.getvalue(), capture_output=True, check=True).stdout
    put(name, data)
    return data


for sampling in ["1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "3x1", "4x2", "2x2,2x1,1x2", "1x1,2x2,1x1", "4x1,2x1,1x1"]:
    for w, h in [(37, 29), (3, 5)]:
        name = sampling.replace(",", "_") + f"_{w}x{h}.jpg"
        cjpeg("seq_" + name, w, h, "-quality", "80", "-sample", sampling)
    cjpeg("prog_" + name, 33, 18, "-quality", "60", "-progressive", "-sample", sampling)
cjpeg("restart_blocks.jpg", 45, 37, "-quality", "50", "-restart", "3B")
cjpeg("restart_rows_prog.jpg", 45, 37, "-quality", "50", "-restart", "1", "-progressive")
cjpeg("scans_apart.jpg", 31, 22, "-quality", "75", scans="0;2;1;")
cjpeg("scans_two.jpg", 31, 22, "-quality", "75", scans="0;1 2;")
cjpeg("rgb.jpg", 31, 22, "-rgb", "-quality", "75")
cjpeg("grey.jpg", 31, 22, "-grayscale", "-quality", "75")
cjpeg("grey_prog.jpg", 31, 22, "-grayscale", "-progressive", "-quality", "75")
cjpeg("quality1.jpg", 40, 40, "-quality", "1")
cjpeg("quality100.jpg", 40, 40, "-quality", "100", "-sample", "1x1")
cjpeg("optimized.jpg", 40, 40, "-optimize", "-quality", "90")

# Progressive files that end early, at the start of a scan and within one.
data = cjpeg("prog_whole.jpg", 70, 50, "-progressive", "-quality", "70")
at = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
for n in range(1, len(at), 2):
    put(f"prog_{n}_scans.jpg", data[: at[n]] + b"\xff\xd9")
    put(f"prog_{n}_scans_and_half.jpg", data[: (at[n] + (at + [len(data)])[n + 1]) // 2] + b"\xff\xd9")

for i, transform in enumerate([None, 0, 1, 2]):
    b = io.BytesIO()
    colours(21, 18, 4).save(b, "JPEG", quality=80, subsampling=i % 3, progressive=i == 3)
    d = bytearray(b.getvalue())
    adobe = d.index(b"Adobe")
    if transform is None:
        d[adobe] = ord("a")  # no Adobe marker
    else:
        d[adobe + 11] = transform
    put(f"cmyk_{transform}.jpg", bytes(d))

# Damaged data: a flipped byte, a lost and a doubled restart marker, an early end.
data = bytearray(cjpeg("whole.jpg", 64, 48, "-quality", "60", "-restart", "2B"))
scan = data.index(b"\xff\xda") + 14
for n in range(4):
    d = bytearray(data)
    d[scan + (len(d) - scan) * (n + 1) // 6] ^= 0x15
    put(f"damaged_{n}.jpg", bytes(d))
r = data.index(b"\xff\xd2")
put("restart_lost.jpg", bytes(data[:r] + data[r + 2 :]))
put("restart_twice.jpg", bytes(data[:r] + data[r : r + 2] + data[r:]))
put("early_end.jpg", bytes(data[: scan + (len(data) - scan) // 2]) + b"\xff\xd9")

# Extreme steps: sums beyond 16 bits.
d = bytearray(cjpeg("steps.jpg", 32, 32, "-quality", "90"))
q = d.index(b"\xff\xdb") + 5
d[q : q + 64] = bytes([255, 1] * 32)
put("steps.jpg", bytes(d))

rgb = colours(27, 19)
alpha = rgb.copy()
alpha.putalpha(Image.fromarray(rng.integers(0, 256, (19, 27), dtype=np.uint8)))
palette = rgb.quantize(13)
rgb.save(f"{out}/lossy.webp", quality=60)
rgb.save(f"{out}/lossless.webp", lossless=True)
alpha.save(f"{out}/alpha.webp", quality=80)
palette.save(f"{out}/transparent.gif", transparency=3)
palette.save(f"{out}/transparent.png", transparency=3)
alpha.convert("LA").save(f"{out}/la.png")
rgb.convert("1").save(f"{out}/one.png")
rgb.convert("1").save(f"{out}/one.bmp")
palette.save(f"{out}/palette.bmp")
palette.save(f"{out}/palette.tif", compression="tiff_lzw")
alpha.save(f"{out}/alpha.tif")
Image.fromarray((np.arange(27 * 19).reshape(19, 27) * 120).astype(np.uint16)).save(f"{out}/grey16.tif")
Image.fromarray((np.arange(27 * 19).reshape(19, 27) % 300).astype(np.uint16)).save(f"{out}/grey16.png")
