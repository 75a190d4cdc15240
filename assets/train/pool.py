"""The training pictures: many scenes drawn once, at the model's input size, kept in a folder as plain arrays.

pixels.npy  uint8   [scenes, 96, 96, 3]
things.npy  float32 [scenes, 4, 6]: kind, colour, x, y, w, h; a kind of −1 where there is no thing
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
from PIL import Image

import scenes

IMAGE_SIZE = 96
CHUNK = 500


def to_pixels(image: Image.Image) -> np.ndarray:
    """A picture as the model sees it: uint8 [96, 96, 3], stretched with Pillow's bicubic."""
    return np.asarray(image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def pack(scene: scenes.Scene) -> np.ndarray:
    """A scene's things as numbers, [4, 6]."""
    rows = np.full((scenes.MAX_THINGS, 6), -1, dtype=np.float32)
    for i, t in enumerate(scene.things):
        rows[i] = (scenes.KINDS.index(t.kind), scenes.COLOUR_NAMES.index(t.colour), t.x, t.y, t.w, t.h)
    return rows


def unpack(rows: np.ndarray) -> scenes.Scene:
    """The way back: a scene that can be asked about, not drawn."""
    things = tuple(
        scenes.Thing(scenes.KINDS[int(k)], scenes.COLOUR_NAMES[int(c)], x, y, w, h)
        for k, c, x, y, w, h in rows.tolist()
        if k >= 0
    )
    black = (0, 0, 0)
    return scenes.Scene(0, 0, (black,) * 4, None, (black, black), 0.0, 0, things)


def draw_chunk(job: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """CHUNK scenes from `first` on, drawn small: three and a half times the input size is plenty."""
    seed, first = job
    pixels = np.empty((CHUNK, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    things = np.empty((CHUNK, scenes.MAX_THINGS, 6), dtype=np.float32)
    for i in range(CHUNK):
        scene = scenes.make_scene(scenes.scene_rng(seed, first + i))
        scale = min(1.0, 3.5 * IMAGE_SIZE / (scene.width * scene.height) ** 0.5)
        pixels[i] = to_pixels(scenes.draw(scene, scale, supersample=1))
        things[i] = pack(scene)
    return pixels, things


def build(folder: Path, seed: int, count: int, workers: int) -> None:
    """Draws count scenes (rounded up to whole chunks) into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    firsts = range(0, count, CHUNK)
    total = len(firsts) * CHUNK
    pixels = np.lib.format.open_memmap(
        folder / "pixels.part.npy", mode="w+", dtype=np.uint8, shape=(total, IMAGE_SIZE, IMAGE_SIZE, 3)
    )
    things = np.empty((total, scenes.MAX_THINGS, 6), dtype=np.float32)
    with multiprocessing.Pool(workers) as pool:
        jobs = [(seed, first) for first in firsts]
        for first, (p, t) in zip(firsts, pool.imap(draw_chunk, jobs)):
            pixels[first : first + CHUNK], things[first : first + CHUNK] = p, t
    pixels.flush()
    np.save(folder / "things.npy", things)
    (folder / "pixels.part.npy").rename(folder / "pixels.npy")


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, things) of a folder that build() made; the pixels stay on disk."""
    return np.load(folder / "pixels.npy", mmap_mode="r"), np.load(folder / "things.npy")
