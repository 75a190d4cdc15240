#!/usr/bin/env python3
"""Makes tests/golden/images: small pictures of every format and what Pillow and numpy make of them.

    python3 tests/reference/make_image_goldens.py          (Pillow 10.4.0, numpy 1.26.4)

Everything is deterministic. A picture's golden is the FNV-1a hash of its RGB bytes; test_picture()
here and in tests/vision/test_pictures.h draw the same pixels, so no large picture is stored.

resize.txt   in_width in_height out_width out_height hash, by Image.resize(BICUBIC)
decode.txt   file width height hash, then the same of the picture turned as its EXIF says
patches.txt  width height patch hash (of little-endian float32), by numpy as SiglipImageProcessor does
*.ppm        one small resized picture in full, for whoever has to find a difference
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parent.parent / "golden" / "images"
ORIENTATION = 0x0112


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def test_picture(width, height, channels=3):
    """Blocks of smooth colour and of noise, side by side. Also in tests/vision/test_pictures.h."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    noise = ((y * width + x) * channels + c).astype(np.uint32) * np.uint32(2654435761)
    noise = (noise ^ (noise >> np.uint32(15))) * np.uint32(2246822519)
    noise ^= noise >> np.uint32(13)
    smooth = x * 3 + y * 2 + c * 85
    return np.where(((x // 8) + (y // 8)) % 2 == 0, noise & 255, smooth & 255).astype(np.uint8)


# --- resize -----------------------------------------------------------------------------------

RESIZES = [
    (1, 1, 1, 1), (1, 1, 384, 384), (384, 384, 384, 384), (384, 384, 1, 1), (2, 1, 1, 2),
    (1, 2, 2, 1), (3, 3, 2, 2), (2, 2, 3, 3), (5, 7, 7, 5), (7, 5, 64, 64), (64, 64, 7, 5),
    (640, 480, 384, 384), (480, 640, 384, 384), (800, 600, 384, 384), (1024, 768, 384, 384),
    (1920, 1080, 384, 384), (333, 777, 384, 384), (385, 383, 384, 384), (383, 385, 384, 384),
    (384, 100, 384, 384), (100, 384, 384, 384), (384, 1000, 384, 384), (1000, 384, 384, 384),
    (4000, 2, 384, 384), (2, 4000, 384, 384), (5000, 1, 100, 1), (1, 5000, 1, 100),
    (9000, 3, 1, 3), (3, 9000, 3, 1), (1, 1, 5, 300), (17, 1, 300, 1), (1, 17, 1, 300),
    (100, 100, 101, 99), (99, 101, 200, 200), (200, 200, 100, 100), (256, 256, 128, 384),
    (128, 384, 256, 256), (31, 33, 512, 16), (700, 500, 13, 600), (384, 384, 224, 224),
    (224, 224, 384, 384), (1000, 1000, 999, 1001), (50, 40, 384, 384), (3000, 200, 336, 336),
    (12, 12, 12, 48), (12, 48, 12, 12),
]


def make_resizes():
    lines = []
    for in_w, in_h, out_w, out_h in RESIZES:
        image = Image.fromarray(test_picture(in_w, in_h)).resize((out_w, out_h), Image.BICUBIC)
        lines.append(f"{in_w} {in_h} {out_w} {out_h} {fnv(image.tobytes())}")
    (OUT / "resize.txt").write_text("\n".join(lines) + "\n")
    Image.fromarray(test_picture(37, 29)).resize((16, 20), Image.BICUBIC).save(OUT / "resized.ppm")


# --- patches ----------------------------------------------------------------------------------

PATCHES = [(28, 28, 14), (30, 30, 14), (33, 33, 8), (16, 16, 16), (5, 5, 1), (23, 37, 7)]


def make_patches():
    lines = []
    for width, height, p in PATCHES:
        image = test_picture(width, height)
        # transformers.image_transforms: rescale, then normalize in the image's own dtype.
        pixels = (image * 0.00392156862745098).astype(np.float32)
        mean = np.array([0.5, 0.25, 0.75], dtype=pixels.dtype)
        std = np.array([0.5, 0.3, 0.7], dtype=pixels.dtype)
        pixels = ((pixels - mean) / std).transpose(2, 0, 1)
        rows, columns = height // p, width // p
        pixels = pixels[:, : rows * p, : columns * p].reshape(3, rows, p, columns, p)
        patches = np.ascontiguousarray(pixels.transpose(1, 3, 0, 2, 4)).astype("<f4")
        lines.append(f"{width} {height} {p} {fnv(patches.tobytes())}")
    (OUT / "patches.txt").write_text("\n".join(lines) + "\n")


# --- writers for what Pillow does not write ---------------------------------------------------


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_rows(samples, depth):
    """samples [h, w, c] -> filtered (type 0) packed rows."""
    height = samples.shape[0]
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").tobytes()
        packed = [packed[i * rows.shape[1] * 2 : (i + 1) * rows.shape[1] * 2] for i in range(height)]
    else:
        bits = ((rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(height, -1)
        packed = [np.packbits(row.astype(np.uint8)).tobytes() for row in bits]
    return b"".join(b"\0" + row for row in packed)


def png_bytes(samples, depth, colour, interlaced=False, before=b"", after=b""):
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    if interlaced:
        data = b""
        for x, y, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
                             (1, 0, 2, 2), (0, 1, 1, 2)]:
            part = samples[y::dy, x::dx]
            if part.size:
                data += png_rows(part, depth)
    else:
        data = png_rows(samples, depth)
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before
            + png_chunk(b"IDAT", zlib.compress(data, 9)) + after + png_chunk(b"IEND", b""))


def bmp_bytes(pixels, width, height, bits, *, compression=0, masks=b"", palette=b"", colours=0,
              core=False, header_size=40):
    if core:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        header = struct.pack("<IiiHHIIiiII", header_size, width, height, 1, bits, compression,
                             len(pixels), 2835, 2835, colours, 0)
        if header_size > 40:
            header += masks + b"\0" * (header_size - 40 - len(masks))
            masks = b""
    at = 14 + len(header) + len(masks) + len(palette)
    return (b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + header + masks + palette
            + pixels)


def bmp_rows(rows, bottom_up=True):
    rows = [row + b"\0" * (-len(row) % 4) for row in rows]
    return b"".join(reversed(rows) if bottom_up else rows)


def tiff_bytes(entries, data, order="<"):
    """entries: {tag: (type, values)}; StripOffsets or TileOffsets given relative to the data."""
    sizes = {1: "B", 3: "H", 4: "I"}
    count = len(entries)
    extra_at = 8 + 2 + count * 12 + 4
    extra_size = 0
    for kind, values in entries.values():
        size = struct.calcsize(sizes[kind]) * len(values)
        extra_size += (size + 1) // 2 * 2 if size > 4 else 0
    data_at = extra_at + extra_size
    ifd, extra = b"", b""
    for tag, (kind, values) in sorted(entries.items()):
        if tag in (273, 324):
            values = [value + data_at for value in values]
        raw = struct.pack(f"{order}{len(values)}{sizes[kind]}", *values)
        ifd += struct.pack(f"{order}HHI", tag, kind, len(values))
        if len(raw) <= 4:
            ifd += raw.ljust(4, b"\0")
        else:
            ifd += struct.pack(f"{order}I", extra_at + len(extra))
            extra += raw + b"\0" * (len(raw) % 2)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return (magic + struct.pack(f"{order}IH", 8, count) + ifd + struct.pack(f"{order}I", 0) + extra
            + data)


def tiff_strips(samples, photometric, bits, order="<", extra=None, **tags):
    height, width, channels = samples.shape
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 259: (3, [1]),
               262: (3, [photometric]), 273: (4, [0]), 277: (3, [channels]), 278: (4, [height])}
    data = samples.astype(f"{order}u{bits // 8}").tobytes()
    entries[279] = (4, [len(data)])
    if extra is not None:
        entries[338] = (3, [extra])
    for tag, value in tags.items():
        entries[int(tag[1:])] = value
    return tiff_bytes(entries, data, order)


# --- decode -----------------------------------------------------------------------------------

decode_lines = []


def add(name, data, expected=None):
    """Stores a file and its golden: Pillow's RGB unless `expected` [h, w, 3] is given."""
    (OUT / name).write_bytes(data)
    fields = [name]
    for honour in (False, True):
        image = Image.open(io.BytesIO(data)) if expected is None else Image.fromarray(expected)
        if honour:
            image = ImageOps.exif_transpose(image)
        image = image.convert("RGB")
        fields += [str(image.width), str(image.height), fnv(image.tobytes())]
    decode_lines.append(" ".join(fields))


def saved(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def exif_with(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def make_jpegs(rgb, grey, cmyk):
    add("baseline.jpg", saved(rgb, "JPEG", quality=80, subsampling=2))
    add("h2v1.jpg", saved(rgb, "JPEG", quality=80, subsampling=1))
    add("h1v1.jpg", saved(rgb, "JPEG", quality=90, subsampling=0))
    add("progressive.jpg", saved(rgb, "JPEG", quality=80, progressive=True))
    add("restarts.jpg", saved(rgb, "JPEG", quality=70, restart_marker_blocks=2))
    add("grey.jpg", saved(grey, "JPEG", quality=80))
    add("cmyk.jpg", saved(cmyk, "JPEG", quality=90))
    # The Adobe marker's last byte says how the colours are transformed: 0 as they are, 2 YCCK.
    data = bytearray(saved(cmyk, "JPEG", quality=90))
    data[data.index(b"Adobe") + 11] = 2
    add("ycck.jpg", bytes(data))
    adobe_rgb = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    data = saved(rgb, "JPEG", quality=90, subsampling=0)
    jfif_end = 4 + struct.unpack(">H", data[4:6])[0]
    add("adobe-rgb.jpg", data[:2] + adobe_rgb + data[jfif_end:])
    for orientation in range(1, 9):
        add(f"orientation{orientation}.jpg",
            saved(rgb.crop((0, 0, 24, 16)), "JPEG", quality=80, exif=exif_with(orientation)))


def make_pngs(rgb, grey, picture):
    add("rgb.png", saved(rgb, "PNG"))
    add("grey.png", saved(grey, "PNG"))
    add("rgba.png", saved(Image.fromarray(test_picture(40, 30, 4), "RGBA"), "PNG"))
    add("grey-alpha.png", saved(Image.fromarray(test_picture(40, 30, 2), "LA"), "PNG"))
    palette = rgb.quantize(200)
    add("palette.png", saved(palette, "PNG"))
    add("palette-alpha.png", saved(palette, "PNG", transparency=bytes(range(200))))
    add("palette4.png", saved(rgb.quantize(11), "PNG", bits=4))
    for depth in (1, 2, 4):
        samples = picture[:, :, :1] >> (8 - depth)
        add(f"grey{depth}.png", png_bytes(samples, depth, 0))
    samples = picture >> 6
    colours = png_chunk(b"PLTE", bytes(test_picture(4, 1).tobytes()))
    add("palette2.png", png_bytes(samples[:, :, :1], 2, 3, before=colours))
    add("palette1.png", png_bytes(samples[:, :, :1] >> 1, 1, 3, before=colours[:0]
        + png_chunk(b"PLTE", bytes(test_picture(2, 1).tobytes()))))
    wide = picture.astype(np.uint16) * 256 + np.roll(picture, 1, 0)
    wide = wide[:20, :20]
    add("rgb16.png", png_bytes(wide, 16, 2))
    add("rgba16.png", png_bytes(np.concatenate([wide, wide[:, :, :1]], 2), 16, 6))
    # Pillow clips 16-bit grey at 255; our rule for every channel is the high byte.
    expected = np.repeat(wide[:, :, :1] >> 8, 3, 2).astype(np.uint8)
    add("grey16.png", png_bytes(wide[:, :, :1], 16, 0), expected)
    add("grey-alpha16.png", png_bytes(wide[:, :, :2], 16, 4), expected)
    add("interlaced.png", png_bytes(picture, 8, 2, interlaced=True))
    add("interlaced16.png", png_bytes(wide, 16, 2, interlaced=True))
    add("interlaced1.png", png_bytes(picture[:3, :5, :1] >> 7, 1, 0, interlaced=True))
    add("key.png", png_bytes(picture, 8, 2, before=png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))))
    add("grey-key.png",
        png_bytes(picture[:, :, :1] >> 4, 4, 0, before=png_chunk(b"tRNS", struct.pack(">H", 7))))
    # Headers that lie: one too large to be read at all, one too large for its few bytes.
    for name, side in (("bomb.png", 30000), ("claim.png", 10000)):
        data = png_bytes(picture, 8, 2)
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        (OUT / name).write_bytes(data[:8] + png_chunk(b"IHDR", header) + data[33:120])
    add("one.png", saved(rgb.crop((3, 3, 4, 4)), "PNG"))
    add("oriented.png", saved(rgb, "PNG", exif=exif_with(6)))
    exif = exif_with(5).tobytes()[6:]
    add("oriented-late.png", png_bytes(picture, 8, 2, after=png_chunk(b"eXIf", exif)))
    exif = exif_with(8).tobytes()
    profile = b"\nexif\n%8d\n" % len(exif) + exif.hex().encode() + b"\n"
    profile = b"Raw profile type exif\0\0" + zlib.compress(profile)
    add("oriented-raw.png", png_bytes(picture, 8, 2, before=png_chunk(b"zTXt", profile)))


def make_webps(rgb):
    rgba = Image.fromarray(test_picture(40, 30, 4), "RGBA")
    add("lossy.webp", saved(rgb, "WEBP", quality=70))
    add("lossless.webp", saved(rgb, "WEBP", lossless=True))
    add("lossy-alpha.webp", saved(rgba, "WEBP", quality=70))
    add("lossless-alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True))
    add("oriented.webp", saved(rgb, "WEBP", quality=60, exif=exif_with(7)))
    frames = [rgb.crop((0, 0, 8, 8)), rgb.crop((8, 0, 16, 8))]
    (OUT / "animated.webp").write_bytes(
        saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))


def make_bmps(rgb, grey, picture):
    picture = picture[:13, :19]
    height, width = picture.shape[:2]
    add("rgb24.bmp", saved(rgb.crop((0, 0, 19, 13)), "BMP"))
    add("grey8.bmp", saved(grey.crop((0, 0, 19, 13)), "BMP"))
    add("bit1.bmp", saved(grey.crop((0, 0, 19, 13)).convert("1"), "BMP"))
    bgr = [row[:, ::-1].tobytes() for row in picture]
    add("top-down.bmp", bmp_bytes(bmp_rows(bgr, False), width, -height, 24))
    add("core24.bmp", bmp_bytes(bmp_rows(bgr), width, height, 24, core=True))
    colours = test_picture(16, 1)[0]
    quads = b"".join(bytes(colour[::-1]) + b"\0" for colour in colours)
    triples = b"".join(bytes(colour[::-1]) for colour in colours)
    indices = picture[:, :, 0] >> 4
    nibbles = [bytes((a << 4) | b for a, b in zip(row[::2], np.append(row[1::2], 0)))
               for row in indices]
    add("palette4.bmp", bmp_bytes(bmp_rows(nibbles), width, height, 4, palette=quads))
    add("core4.bmp", bmp_bytes(bmp_rows(nibbles), width, height, 4, palette=triples, core=True))
    ones = [np.packbits(row >> 3).tobytes() for row in indices]
    add("palette1.bmp", bmp_bytes(bmp_rows(ones), width, height, 1, palette=quads[:8], colours=2))
    bytewise = [bytes(row) for row in indices]
    add("palette8.bmp", bmp_bytes(bmp_rows(bytewise), width, height, 8, palette=quads, colours=16))
    words = picture.astype(np.uint16)
    r, g, b = words[:, :, 0], words[:, :, 1], words[:, :, 2]
    rgb555 = [((row_r >> 3) << 10 | (row_g >> 3) << 5 | row_b >> 3).astype("<u2").tobytes()
              for row_r, row_g, row_b in zip(r, g, b)]
    add("rgb555.bmp", bmp_bytes(bmp_rows(rgb555), width, height, 16))
    rgb565 = [((row_r >> 3) << 11 | (row_g >> 2) << 5 | row_b >> 3).astype("<u2").tobytes()
              for row_r, row_g, row_b in zip(r, g, b)]
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    add("rgb565.bmp", bmp_bytes(bmp_rows(rgb565), width, height, 16, compression=3, masks=masks))
    bgrx = [np.concatenate([row[:, ::-1], row[:, :1]], 1).tobytes() for row in picture]
    add("rgb32.bmp", bmp_bytes(bmp_rows(bgrx), width, height, 32))
    rgba = [np.concatenate([row, row[:, :1]], 1).tobytes() for row in picture]
    masks = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    add("masks32.bmp", bmp_bytes(bmp_rows(rgba), width, height, 32, compression=3, masks=masks,
                                 header_size=108))
    make_run_bmps(quads)


def make_run_bmps(quads):
    """8 x 4 pixels: a run, literals (odd, so padded), a short row, a full row."""
    runs = bytes([8, 3, 0, 0, 3, 1, 0, 5, 4, 5, 6, 7, 8, 0, 0, 0, 4, 9, 4, 2, 0, 0, 8, 15, 0, 1])
    add("rle8.bmp", bmp_bytes(runs, 8, 4, 8, compression=1, palette=quads, colours=16))
    runs = bytes([8, 0x3A, 0, 0, 2, 0x12, 0, 6, 0x45, 0x67, 0x89, 0, 0, 0, 8, 0x9B, 0, 0,
                  8, 0xF1, 0, 1])
    add("rle4.bmp", bmp_bytes(runs, 8, 4, 4, compression=2, palette=quads))
    # Pillow forgets the last byte of an odd number of literals: spelled out here.
    runs = bytes([3, 0x12, 0, 5, 0x45, 0x67, 0x80, 0, 0, 1])
    expected = np.frombuffer(quads, np.uint8).reshape(16, 4)[[[1, 2, 1, 4, 5, 6, 7, 8]], 2::-1]
    add("rle4-odd.bmp", bmp_bytes(runs, 8, 1, 4, compression=2, palette=quads), expected)


def make_tiffs(rgb, grey, cmyk, picture):
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(f"{compression}.tif", saved(rgb, "TIFF", compression=compression))
    add("grey.tif", saved(grey, "TIFF"))
    add("bit1.tif", saved(grey.convert("1"), "TIFF", compression="group4"))
    add("palette.tif", saved(rgb.quantize(64), "TIFF"))
    add("cmyk.tif", saved(cmyk, "TIFF"))
    rgba = test_picture(20, 12, 4)
    add("rgba.tif", tiff_strips(rgba, 2, 8, extra=2))
    add("rgba-associated.tif", tiff_strips(rgba, 2, 8, extra=1))
    add("rgbx.tif", tiff_strips(rgba, 2, 8, extra=0))
    wide = rgba[:, :, :3].astype(np.uint16) * 256 + np.roll(rgba[:, :, :3], 1, 0)
    add("rgb16.tif", tiff_strips(wide, 2, 16))
    add("rgb16-big-endian.tif", tiff_strips(wide, 2, 16, order=">"))
    expected = np.repeat(wide[:, :, :1] >> 8, 3, 2).astype(np.uint8)
    add("grey16.tif", tiff_strips(wide[:, :, :1], 1, 16), expected)
    add("white-is-zero.tif", tiff_strips(picture[:12, :20, :1], 0, 8))
    planes = np.ascontiguousarray(picture[:12, :20].transpose(2, 0, 1)).tobytes()
    entries = {256: (4, [20]), 257: (4, [12]), 258: (3, [8] * 3), 259: (3, [1]), 262: (3, [2]),
               273: (4, [0, 240, 480]), 277: (3, [3]), 278: (4, [12]), 279: (4, [240] * 3),
               284: (3, [2])}
    add("planar.tif", tiff_bytes(entries, planes))
    tiles = b"".join(np.ascontiguousarray(picture[:16, x : x + 16]).tobytes() for x in (0, 16))
    entries = {256: (4, [32]), 257: (4, [16]), 258: (3, [8] * 3), 259: (3, [1]), 262: (3, [2]),
               277: (3, [3]), 322: (4, [16]), 323: (4, [16]), 324: (4, [0, 768]),
               325: (4, [768, 768])}
    add("tiled.tif", tiff_bytes(entries, tiles))
    for orientation in range(2, 9):
        add(f"orientation{orientation}.tif",
            tiff_strips(picture[:4, :6], 2, 8, t274=(3, [orientation])))


def make_pnms(rgb, grey, picture):
    add("raw.ppm", saved(rgb.crop((0, 0, 19, 13)), "PPM"))
    add("raw.pgm", saved(grey.crop((0, 0, 19, 13)), "PPM"))
    add("raw.pbm", saved(grey.crop((0, 0, 19, 13)).convert("1"), "PPM"))
    small = picture[:3, :5]
    plain = "\n".join(" ".join(str(v) for v in row.reshape(-1)) for row in small)
    add("plain.ppm", f"P3\n# a comment\n5 # and one more\n3\n255\n{plain}\n".encode())
    bits = "\n".join("".join(str(v >> 7) for v in row[:, 0]) for row in small)
    add("plain.pbm", f"P1\n5 3\n{bits}\n".encode())
    plain = " ".join(str(v % 101) for v in small[:, :, 0].reshape(-1))
    add("plain100.pgm", f"P2 5 3 100 {plain}\n".encode())
    add("raw100.pgm", b"P5 5 3 100 " + (small[:, :, 0] % 101).tobytes())
    wide = small.astype(np.uint32) * 256 + np.roll(small, 1, 0)
    add("raw1000.ppm", b"P6 5 3 1000 " + (wide % 1001).astype(">u2").tobytes())
    # Pillow keeps deep grey as it is and then clips it; here it is scaled like the others.
    expected = np.rint(wide[:, :, :1] / 65535 * 255).astype(np.uint8).repeat(3, 2)
    add("raw65535.pgm", b"P5 5 3 65535\n" + wide[:, :, 0].astype(">u2").tobytes(), expected)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    make_resizes()
    make_patches()
    picture = test_picture(40, 30)
    rgb = Image.fromarray(picture)
    grey = Image.fromarray(picture[:, :, 0])
    cmyk = Image.fromarray(test_picture(40, 30, 4), "CMYK")
    make_jpegs(rgb, grey, cmyk)
    make_pngs(rgb, grey, picture)
    make_webps(rgb)
    make_bmps(rgb, grey, picture)
    make_tiffs(rgb, grey, cmyk, picture)
    make_pnms(rgb, grey, picture)
    (OUT / "decode.txt").write_text("\n".join(decode_lines) + "\n")
    print(f"{len(list(OUT.iterdir()))} files,", sum(f.stat().st_size for f in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
