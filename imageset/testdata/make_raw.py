"""Makes the BMP, TIFF and WebP files of testdata/pillow that Pillow reads but
mostly does not write: tiles, planes, predictors, both byte orders, colour masks,
runs. The manifest is made as for make.py.

    venv/bin/python imageset/testdata/make_raw.py imageset/testdata/pillow
"""
import struct, sys, zlib
import numpy as np
from PIL import Image

out = sys.argv[1]
rng = np.random.default_rng(11)
H, W = 9, 21


def put(name, *parts):
    with open(f"{out}/{name}", "wb") as f:
        f.write(b"".join(parts))


def tiff(name, a, photometric, order="<", tile=None, rows=4, planes=False, deflate=False, predictor=False, extra=None, **tags):
    """a: height x width x samples of the type that is to be stored."""
    height, width, samples = a.shape
    bits = 8 * a.dtype.itemsize
    kind = {"u": 1, "i": 2, "f": 3}[a.dtype.kind]
    th, tw = tile or (rows, width)
    pieces = []
    for plane in np.split(a, samples, 2) if planes else [a]:
        for y in range(0, height, th):
            for x in range(0, width, tw):
                p = plane[y : y + th, x : x + tw]
                if tile:
                    p = np.pad(p, ((0, th - p.shape[0]), (0, tw - p.shape[1]), (0, 0)))
                if predictor:
                    p = np.diff(p, axis=1, prepend=p[:, :1] * 0)
                p = p.astype(p.dtype.newbyteorder(order)).tobytes()
                pieces.append(zlib.compress(p) if deflate else p)
    data, offsets = b"", []
    for p in pieces:
        offsets.append(8 + len(data))
        data += p + b"\0" * (len(p) % 2)
    places = {"offsets": 324, "counts": 325} if tile else {"offsets": 273, "counts": 279}
    fields = {
        256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * samples), 259: (3, [8 if deflate else 1]),
        262: (3, [photometric]), 277: (3, [samples]), 284: (3, [2 if planes else 1]), 339: (3, [kind] * samples),
        places["offsets"]: (4, offsets), places["counts"]: (4, [len(p) for p in pieces]),
    }
    fields.update({322: (3, [tw]), 323: (3, [th])} if tile else {278: (3, [rows])})
    if predictor:
        fields[317] = (3, [2])
    if extra is not None:
        fields[338] = (3, [extra])
    if "orientation" in tags:
        fields[274] = (3, [tags["orientation"]])
    if photometric == 3:
        fields[320] = (3, list(rng.integers(0, 65536, 768)))
    at = 8 + len(data)
    beyond = at + 2 + 12 * len(fields) + 4
    entries, more = b"", b""
    for tag, (t, values) in sorted(fields.items()):
        v = struct.pack(f"{order}{len(values)}{'HI'[t == 4]}", *values)
        entries += struct.pack(f"{order}HHI", tag, t, len(values))
        if len(v) > 4:
            entries += struct.pack(f"{order}I", beyond + len(more))
            more += v
        else:
            entries += v.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    put(name, mark, struct.pack(f"{order}I", at), data, struct.pack(f"{order}H", len(fields)), entries, b"\0" * 4, more)


def numbers(dtype, samples, low=0, high=None):
    high = high or np.iinfo(dtype).max + 1
    return rng.integers(low, high, (H, W, samples)).astype(dtype)


small = np.cumsum(rng.integers(0, 3, (H, W, 3)), axis=1).astype(np.uint8)
tiff("raw_rgb_tiles.tif", small, 2, tile=(16, 16))
tiff("raw_rgb_planes.tif", small, 2, planes=True)
tiff("raw_rgb_planes_tiles.tif", small, 2, ">", tile=(16, 16), planes=True, deflate=True, predictor=True)
tiff("raw_rgb_predictor.tif", small, 2, deflate=True, predictor=True)
tiff("raw_rgb16_predictor.tif", numbers(np.uint16, 3), 2, deflate=True, predictor=True)
tiff("raw_rgb16_big.tif", numbers(np.uint16, 3), 2, ">")
tiff("raw_premultiplied.tif", numbers(np.uint8, 4), 2, extra=1)
tiff("raw_unknown_extra.tif", numbers(np.uint8, 4), 2, extra=0)
tiff("raw_rgba16.tif", numbers(np.uint16, 4), 2, extra=2)
tiff("raw_cmyk.tif", numbers(np.uint8, 4), 5)
tiff("raw_cmyk16.tif", numbers(np.uint16, 4), 5, ">")
tiff("raw_white_is_zero.tif", numbers(np.uint8, 1), 0)
tiff("raw_grey_alpha.tif", numbers(np.uint8, 2), 1, extra=2)
tiff("raw_grey_premultiplied.tif", numbers(np.uint8, 2), 1, extra=1)
tiff("raw_grey16_big.tif", numbers(np.uint16, 1, 0, 400), 1, ">")
tiff("raw_grey16_signed.tif", numbers(np.int16, 1, -100, 400), 1)
tiff("raw_grey32.tif", numbers(np.int32, 1, -100, 400), 1)
tiff("raw_grey32_big.tif", numbers(np.int32, 1, -100, 400), 1, ">")
tiff("raw_float.tif", (rng.random((H, W, 1)) * 400 - 70).astype(np.float32), 1)
tiff("raw_palette.tif", numbers(np.uint8, 1), 3)
for o in range(2, 9):
    tiff(f"raw_orientation_{o}.tif", small, 2, orientation=o)
rgb = Image.fromarray(np.kron(small[:, :, ::-1], np.ones((2, 2, 1), np.uint8)))
rgb.save(f"{out}/jpeg.tif", compression="jpeg")
rgb.convert("L").save(f"{out}/jpeg_grey.tif", compression="jpeg")
for name, c in (("group3", "group3"), ("group4", "group4"), ("packbits", "packbits")):
    rgb.convert("1").save(f"{out}/{name}.tif", compression=c)


def bmp(name, width, height, bits, rows, compression=0, masks=b"", palette=b"", size=40, colors=None):
    if size == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        n = len(palette) // 4 if colors is None else colors
        head = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(rows), 2835, 2835, n, 0)
    if size > 40:
        head, masks = (head + masks).ljust(size, b"\0"), b""
    at = 14 + len(head + masks + palette)
    put(name, b"BM", struct.pack("<IHHI", at + len(rows), 0, 0, at), head, masks, palette, rows)


def rows(a):
    return b"".join(r.tobytes().ljust((r.nbytes + 3) // 4 * 4, b"\0") for r in a)


def masks(*m):
    return struct.pack(f"<{len(m)}I", *m)


two, four = rng.integers(0, 65536, (7, 5)).astype("<u2"), rng.integers(0, 256, (7, 5, 4), dtype=np.uint8)
three = np.ascontiguousarray(four[:, :, :3])
colours = bytes(rng.integers(0, 256, 1024, dtype=np.uint8))
bmp("raw_16.bmp", 5, 7, 16, rows(two))
bmp("raw_565.bmp", 5, 7, 16, rows(two), 3, masks(0xF800, 0x7E0, 0x1F))
bmp("raw_555.bmp", 5, 7, 16, rows(two), 3, masks(0x7C00, 0x3E0, 0x1F))
bmp("raw_32.bmp", 5, 7, 32, rows(four))
bmp("raw_32_masks.bmp", 5, 7, 32, rows(four), 3, masks(0xFF000000, 0xFF0000, 0xFF00))
bmp("raw_32_v5.bmp", 5, 7, 32, rows(four), 3, masks(0xFF, 0xFF00, 0xFF0000, 0xFF000000), size=124)
bmp("raw_down.bmp", 5, -7, 24, rows(three))
bmp("raw_os2.bmp", 5, 7, 24, rows(three), size=12)
bmp("raw_os2_4.bmp", 5, 7, 4, rows(two[:, :2]), palette=colours[:48], size=12)
bmp("raw_1.bmp", 5, 7, 1, rows(two[:, :1]), palette=colours[:8])
bmp("raw_few_colours.bmp", 5, 7, 8, rows(four[:, :, 0] % 9), palette=colours[:20])
bmp("raw_grey_colours.bmp", 5, 7, 8, rows(four[:, :, 0] % 9), palette=bytes(v for i in range(6) for v in (i, i, i, 0)))
runs = bytes([5, 7, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 2, 9, 0, 2, 1, 1, 9, 6, 0, 0, 1, 3])
bmp("raw_runs8.bmp", 5, 5, 8, runs + bytes([4, 8, 0, 1]), 1, palette=colours)
bmp("raw_runs4.bmp", 5, 3, 4, bytes([9, 0x73, 0, 0, 0, 5, 0x12, 0x34, 0x50, 0, 0, 0, 5, 0x98, 0, 1]), 2, palette=colours[:64])
bmp("raw_runs_cut.bmp", 5, 3, 8, bytes([5, 7, 0, 0, 5, 9, 0, 1]), 1, palette=colours)

rgb.save(f"{out}/frames.webp", save_all=True, append_images=[rgb.rotate(180)], lossless=True)
clear = rgb.convert("RGBA")
clear.putalpha(Image.fromarray(np.pad(np.full((6, 20), 200, np.uint8), ((7, 2 * H - 13), (11, 2 * W - 31)))))
clear.save(f"{out}/frames_alpha.webp", save_all=True, append_images=[rgb.convert("RGBA")], quality=70)
