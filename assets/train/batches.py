"""From scenes to tensors: augmented pictures, packed questions, and labels for the patches."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import pool
import scenes
from text import Encoder

GRID = 8  # patches a side
IMAGE_ROWS = GRID * GRID - 1
# What a token of an answer counts for: captions have many tokens, colours and places are hard to learn.
WEIGHTS = {"what": 2.0, "colour": 4.0, "count": 5.0, "where": 5.0, "yesno": 3.0, "caption": 2.0}


@dataclass
class PatchLabels:
    """What each patch shows; −100 where a label means nothing. All but boxes are int64 [B, 64]."""

    kind: Tensor  # 0 is background
    colour: Tensor
    boxes: Tensor  # float [B, 64, 4]: centre and extent of the thing that covers the patch
    same_kind: Tensor  # how many things of this kind there are, less one
    same_colour: Tensor
    total: Tensor  # how many things in the picture, less one
    mention: Tensor  # the place of this thing in the caption: first, second …
    row: Tensor  # the row it is in, from the top
    rows: Tensor  # how many rows there are, less one
    centre: Tensor  # 1 where a thing's middle is: one patch a thing, which makes counting a matter of adding up


@dataclass
class Turns:
    """Packed questions. T is the image rows and then all turns; P the prefix before the image."""

    ids: Tensor  # int64 [B, T − image rows]
    positions: Tensor  # int64 [B, T]
    mask: Tensor  # float [B, 1, T, P + T]: 0 where a row may look, −∞ where it may not
    targets: Tensor  # int64 [B, T]: the id that follows, −100 where nothing is to be learnt
    weights: Tensor  # float [B, T]
    owner: Tensor  # int64 [B, T]: which question a row belongs to; −1 for image and padding
    kinds: list[list[str]]  # the questions' types


def mirror(things: np.ndarray) -> np.ndarray:
    """The same scene, [4, 6], seen in a mirror."""
    result = things.copy()
    present = result[:, 0] >= 0
    result[present, 2] = 1 - result[present, 2]
    return result


def augment(pixels: np.ndarray, things: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors half of the pictures; varies light, tint and grain a little in every one. [B, 96, 96, 3], [B, 4, 6]."""
    count = len(pixels)
    flips = rng.random(count) < 0.5
    pixels = np.where(flips[:, None, None, None], pixels[:, :, ::-1], pixels).astype(np.float32)
    things = np.stack([mirror(t) if f else t for t, f in zip(things, flips)])
    gain = rng.uniform(0.93, 1.06, (count, 1, 1, 1)) * rng.uniform(0.98, 1.02, (count, 1, 1, 3))
    pixels = pixels * gain.astype(np.float32) + rng.uniform(-6, 6, (count, 1, 1, 1)).astype(np.float32)
    grainy = rng.random(count) < 0.3
    if grainy.any():
        pixels[grainy] += 4 * rng.standard_normal(pixels[grainy].shape, dtype=np.float32)
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8), things


def caption_places(things: np.ndarray) -> np.ndarray:
    """For one scene's things, [4, 6]: place in the caption, row, rows less one, [4, 3]."""
    places = np.zeros((len(things), 3), dtype=np.float32)
    scene = pool.unpack(things)
    lines = scenes.layout(scene.things)
    assert lines is not None
    for place, thing in enumerate(scenes.order_of_mention(lines)):
        row = next(i for i, line in enumerate(lines) if any(t is thing for t in line))
        places[next(i for i, t in enumerate(scene.things) if t is thing)] = place, row, len(lines) - 1
    return places


def label_patches(things: np.ndarray) -> PatchLabels:
    """Labels from the things' boxes, [B, 4, 6]: a patch belongs to the box that covers its centre."""
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    px, py = np.tile(middle, GRID), np.repeat(middle, GRID)
    kind, colour, x, y, w, h = (things[:, :, i, None] for i in range(6))
    present = kind >= 0
    inside = (np.abs(px - x) < 0.46 * w) & (np.abs(py - y) < 0.46 * h)
    central = (np.abs(px - x) <= 0.5 / GRID) & (np.abs(py - y) <= 0.5 / GRID)
    covers = (inside | central) & present  # [B, 4, 64]
    any_thing, which = covers.any(1), covers.argmax(1)

    def per_patch(values: np.ndarray, nothing: int) -> Tensor:
        return torch.from_numpy(np.where(any_thing, np.take_along_axis(values, which, 1), nothing).astype(np.int64))

    def same(values: np.ndarray) -> np.ndarray:
        return ((values == values.transpose(0, 2, 1)) & present.transpose(0, 2, 1)).sum(2) - 1

    kinds, colours = things[:, :, 0], things[:, :, 1]
    places = np.stack([caption_places(t) for t in things])
    boxes = np.take_along_axis(things[:, :, 2:], which[:, :, None], 1)
    total = np.repeat((kinds >= 0).sum(1, keepdims=True) - 1, GRID * GRID, 1)
    return PatchLabels(
        kind=per_patch(kinds + 1, 0),
        colour=per_patch(colours, -100),
        boxes=torch.from_numpy(boxes),
        same_kind=per_patch(same(kind), -100),
        same_colour=per_patch(same(colour), -100),
        total=torch.from_numpy(total.astype(np.int64)),
        mention=per_patch(places[:, :, 0], -100),
        row=per_patch(places[:, :, 1], -100),
        centre=torch.from_numpy((central & present).any(1).astype(np.int64)),
        rows=torch.from_numpy(np.repeat(places[:, :1, 2], GRID * GRID, 1).astype(np.int64)),
    )


def pack_turns(asked: list[list[scenes.Question]], encoder: Encoder, conversation: bool) -> Turns:
    """Packs every picture's questions into one sequence.

    In a conversation each turn sees the turns before it. Otherwise it sees only the prefix, the image and itself,
    and its positions start right after the image: every question is then a first question, at the price of one image.
    """
    prefix = len(encoder.prefix)
    ids, targets, weights, owner, positions = [], [], [], [], []
    for turns in asked:
        row: list[list[float]] = [[] for _ in range(5)]
        for number, q in enumerate(turns):
            given, learnt = encoder.turn(str(q["question"]), str(q["answer"]), first=number == 0 or not conversation)
            n, m = len(given), len(learnt)
            start = prefix + IMAGE_ROWS + (len(row[0]) if conversation else 0)
            row[0] += [*given, *learnt]
            row[1] += [-100] * (n - 1) + [*learnt, -100]
            row[2] += [WEIGHTS[str(q["type"])]] * (n + m)
            row[3] += [number] * (n + m)
            row[4] += range(start, start + n + m)
        for collected, values in zip((ids, targets, weights, owner, positions), row):
            collected.append(values)
    longest = -(-max(map(len, ids)) // 32) * 32

    def padded(rows: list[list[float]], value: float, image: list[int] | None, dtype: torch.dtype) -> Tensor:
        return torch.tensor([(image or []) + r + [value] * (longest - len(r)) for r in rows], dtype=dtype)

    nothing = [-1] * IMAGE_ROWS
    owners = padded(owner, -1, nothing, torch.int64)
    total = IMAGE_ROWS + longest
    causal = torch.ones(total, total, dtype=torch.bool).tril()
    image = torch.arange(total) < IMAGE_ROWS
    if conversation:
        mask = causal.expand(len(asked), -1, -1)
    else:
        mask = causal & (image | (owners[:, :, None] == owners[:, None, :]))
    before = torch.zeros(len(asked), total, prefix)
    mask = torch.zeros(len(asked), total, total).masked_fill(~mask, float("-inf"))
    return Turns(
        ids=padded(ids, 0, None, torch.int64),
        positions=padded(positions, 0, list(range(prefix, prefix + IMAGE_ROWS)), torch.int64),
        mask=torch.cat((before, mask), 2).unsqueeze(1),
        targets=padded(targets, -100, [-100] * IMAGE_ROWS, torch.int64),
        weights=padded(weights, 0, [0] * IMAGE_ROWS, torch.float32),
        owner=owners,
        kinds=[[str(q["type"]) for q in turns] for turns in asked],
    )


def ask(things: np.ndarray, rng: random.Random) -> list[scenes.Question]:
    """All questions about a scene, in random order."""
    found = scenes.questions(pool.unpack(things), rng)
    rng.shuffle(found)
    return found
