#!/usr/bin/env python3
"""Draws simple scenes and asks questions about them.

    scenes.py --seed 7 --count 100 --out /tmp/scenes

writes scene-00000.png … and questions.jsonl, one question a line. Pillow is all it needs.
The same seed gives the same scenes, pictures and questions on every machine.

A scene is one to four things (a red house, a blue fish …) on a quiet background. Coordinates are
fractions of the picture, x to the right and y downwards, so they survive any resize.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, RGB] = {
    "red": (214, 32, 36),
    "orange": (250, 136, 16),
    "yellow": (250, 222, 40),
    "green": (36, 150, 52),
    "blue": (36, 84, 214),
    "purple": (128, 40, 168),
    "pink": (250, 132, 186),
    "brown": (122, 72, 34),
    "black": (26, 26, 28),
    "white": (250, 250, 250),
}
COLOUR_NAMES = list(COLOURS)

# Every kind of thing, with what it does: one of them, and several.
VERBS: dict[str, tuple[str, str]] = {
    "circle": ("sits", "sit"),
    "square": ("rests", "rest"),
    "triangle": ("stands", "stand"),
    "star": ("twinkles", "twinkle"),
    "heart": ("floats", "float"),
    "house": ("stands", "stand"),
    "tree": ("grows", "grow"),
    "fish": ("swims", "swim"),
    "car": ("is parked", "are parked"),
    "sun": ("shines", "shine"),
    "moon": ("glows", "glow"),
    "flower": ("blooms", "bloom"),
    "boat": ("sails", "sail"),
    "bird": ("flies", "fly"),
}
KINDS = list(VERBS)

BACKDROPS: list[RGB] = [
    (176, 206, 228), (196, 214, 190), (226, 214, 194), (202, 198, 216), (186, 188, 192),
    (214, 220, 222), (160, 184, 180), (206, 196, 178), (150, 164, 190), (190, 200, 170),
    (142, 150, 158), (222, 206, 200),
]
SKIES: list[RGB] = [(174, 208, 232), (196, 220, 236), (150, 172, 204), (214, 206, 210), (186, 196, 206)]
GROUNDS: list[RGB] = [(176, 196, 150), (206, 194, 160), (158, 176, 148), (184, 178, 170), (140, 172, 190)]

MAX_THINGS = 4
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
STEP = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True)
class Thing:
    """One thing in a scene: (x, y) is its centre, (w, h) its extent, in fractions of the picture."""

    kind: str
    colour: str
    x: float
    y: float
    w: float
    h: float
    rgb: RGB = (0, 0, 0)
    mirrored: bool = False
    tilt: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn: its size in pixels, its background, its things."""

    width: int
    height: int
    background: tuple[RGB, RGB, RGB, RGB]  # corners: top left, top right, bottom left, bottom right
    horizon: float | None  # where the ground begins, if it does
    ground: tuple[RGB, RGB]
    noise: float
    noise_seed: int
    things: tuple[Thing, ...]


# --- shapes ------------------------------------------------------------------------------------
# A shape is a list of polygons in a box of [-1, 1]², each with its paint: "fill" is the thing's
# colour, "dark" a darker tone of it, or a fixed colour for small details.

Paint = str | RGB
Shape = list[tuple[list[Point], Paint]]

WOOD: RGB = (104, 70, 42)
GLASS: RGB = (206, 230, 240)
RUBBER: RGB = (38, 38, 42)
LEAF: RGB = (70, 130, 60)
BEAK: RGB = (236, 160, 40)


def ellipse(cx: float, cy: float, rx: float, ry: float, n: int = 28) -> list[Point]:
    return [(cx + rx * math.cos(2 * math.pi * i / n), cy + ry * math.sin(2 * math.pi * i / n)) for i in range(n)]


def box(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def burst(outer: float, inner: float, n: int) -> list[Point]:
    """A star of n points, the first one straight up."""
    points = []
    for i in range(2 * n):
        r = inner if i % 2 else outer
        a = math.pi * i / n - math.pi / 2
        points.append((r * math.cos(a), r * math.sin(a)))
    return points


def heart_outline() -> list[Point]:
    points = []
    for i in range(36):
        t = 2 * math.pi * i / 36
        x = math.sin(t) ** 3
        y = (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15
        points.append((x, -y - 0.12))
    return points


def crescent() -> list[Point]:
    """A waning moon: a large arc out, a smaller one back."""
    out = [(0.25 + math.cos(a), math.sin(a)) for a in (math.radians(60 + 10 * i) for i in range(25))]
    back = [(0.62 + 0.88 * math.cos(a), 0.88 * math.sin(a)) for a in (math.radians(281 - 10 * i) for i in range(21))]
    return out + back


@functools.cache
def shape(kind: str) -> Shape:
    """The polygons of a kind, back to front."""
    if kind == "circle":
        return [(ellipse(0, 0, 0.9, 0.9, 40), "fill")]
    if kind == "square":
        return [(box(-0.82, -0.82, 0.82, 0.82), "fill")]
    if kind == "triangle":
        return [([(0, -0.9), (0.98, 0.8), (-0.98, 0.8)], "fill")]
    if kind == "star":
        return [(burst(1.05, 0.44, 5), "fill")]
    if kind == "heart":
        return [(heart_outline(), "fill")]
    if kind == "house":
        return [
            (box(-0.72, -0.15, 0.72, 0.95), "fill"),
            ([(-0.95, -0.1), (0, -1), (0.95, -0.1)], "dark"),
            (box(-0.16, 0.4, 0.2, 0.95), RUBBER),
            (box(-0.56, 0.12, -0.26, 0.42), GLASS),
            (box(0.3, 0.12, 0.58, 0.42), GLASS),
        ]
    if kind == "tree":
        return [
            (box(-0.16, 0.5, 0.16, 1), WOOD),
            ([(-0.8, 0.6), (0.8, 0.6), (0, -0.2)], "fill"),
            ([(-0.64, 0.14), (0.64, 0.14), (0, -0.6)], "fill"),
            ([(-0.46, -0.32), (0.46, -0.32), (0, -1)], "fill"),
        ]
    if kind == "fish":
        return [
            ([(0.4, 0), (1, -0.55), (0.86, 0), (1, 0.55)], "dark"),
            ([(-0.15, -0.4), (0.3, -0.72), (0.25, -0.3)], "dark"),
            (ellipse(-0.2, 0, 0.8, 0.5), "fill"),
            (ellipse(-0.62, -0.12, 0.11, 0.11, 12), (250, 250, 250)),
            (ellipse(-0.64, -0.12, 0.05, 0.05, 8), RUBBER),
        ]
    if kind == "car":
        return [
            ([(-0.6, -0.1), (-0.38, -0.6), (0.3, -0.6), (0.62, -0.1)], "fill"),
            ([(-1, 0.38), (-1, 0), (-0.85, -0.12), (0.8, -0.12), (1, 0.08), (1, 0.38)], "fill"),
            ([(-0.44, -0.14), (-0.3, -0.46), (-0.08, -0.46), (-0.08, -0.14)], GLASS),
            ([(0.06, -0.14), (0.06, -0.46), (0.24, -0.46), (0.42, -0.14)], GLASS),
            (ellipse(-0.55, 0.38, 0.25, 0.25, 18), RUBBER),
            (ellipse(0.55, 0.38, 0.25, 0.25, 18), RUBBER),
            (ellipse(-0.55, 0.38, 0.1, 0.1, 10), (190, 190, 194)),
            (ellipse(0.55, 0.38, 0.1, 0.1, 10), (190, 190, 194)),
        ]
    if kind == "sun":
        rays: Shape = []
        for i in range(10):
            a = 2 * math.pi * i / 10
            tip = (math.cos(a), math.sin(a))
            left = (0.66 * math.cos(a - 0.2), 0.66 * math.sin(a - 0.2))
            right = (0.66 * math.cos(a + 0.2), 0.66 * math.sin(a + 0.2))
            rays.append(([left, tip, right], "fill"))
        return rays + [(ellipse(0, 0, 0.52, 0.52), "fill")]
    if kind == "moon":
        return [(crescent(), "fill")]
    if kind == "flower":
        petals: Shape = []
        for i in range(5):
            a = 2 * math.pi * i / 5 - math.pi / 2
            petals.append((ellipse(0.42 * math.cos(a), -0.3 + 0.42 * math.sin(a), 0.34, 0.34, 18), "fill"))
        return [
            (box(-0.07, 0, 0.07, 1), LEAF),
            ([(0, 0.92), (0.2, 0.62), (0.6, 0.55), (0.44, 0.84)], LEAF),
            *petals,
            (ellipse(0, -0.3, 0.22, 0.22, 16), (232, 190, 90)),
        ]
    if kind == "boat":
        return [
            (box(-0.06, -0.98, 0.06, 0.4), WOOD),
            ([(0.14, -0.92), (0.14, 0.2), (0.88, 0.2)], "fill"),
            ([(-0.14, -0.6), (-0.14, 0.2), (-0.68, 0.2)], "fill"),
            ([(-1, 0.36), (1, 0.36), (0.66, 0.86), (-0.66, 0.86)], "dark"),
        ]
    if kind == "bird":
        return [
            ([(-0.98, -0.28), (-0.66, -0.44), (-0.66, -0.14)], BEAK),
            ([(0.3, 0.1), (1, -0.1), (0.9, 0.34), (0.4, 0.36)], "dark"),
            (ellipse(0.05, 0.14, 0.58, 0.36), "fill"),
            (ellipse(-0.46, -0.26, 0.3, 0.28, 20), "fill"),
            ([(-0.2, 0.1), (0.24, -0.92), (0.62, -0.86), (0.42, 0.16)], "dark"),
            (ellipse(-0.54, -0.32, 0.07, 0.07, 10), RUBBER),
            (box(-0.08, 0.48, -0.02, 0.76), BEAK),
            (box(0.14, 0.48, 0.2, 0.76), BEAK),
        ]
    raise ValueError(f"no such kind of thing: {kind}")


@functools.cache
def extent(kind: str) -> tuple[float, float]:
    """Half width and half height of a kind's shape, in its own box."""
    points = [p for polygon, _ in shape(kind) for p in polygon]
    return max(abs(x) for x, _ in points), max(abs(y) for _, y in points)


# --- drawing -----------------------------------------------------------------------------------


def darker(rgb: RGB, by: float) -> RGB:
    return tuple(int(v * by) for v in rgb)  # type: ignore[return-value]


def corners(colours: tuple[RGB, RGB, RGB, RGB], size: tuple[int, int]) -> Image.Image:
    """A smooth blend of four corner colours."""
    small = Image.new("RGB", (2, 2))
    small.putdata(colours)
    return small.resize(size, Image.Resampling.BILINEAR)


def draw_background(scene: Scene, size: tuple[int, int]) -> Image.Image:
    width, height = size
    image = corners(scene.background, size)
    if scene.horizon is not None:
        y = round(scene.horizon * height)
        near, far = scene.ground
        image.paste(corners((far, far, near, near), (width, height - y)), (0, y))
    if scene.noise > 0:
        grain = Image.frombytes("RGB", (48, 36), random.Random(scene.noise_seed).randbytes(48 * 36 * 3))
        image = Image.blend(image, grain.resize(size, Image.Resampling.BILINEAR), scene.noise)
    return image


def draw_thing(canvas: ImageDraw.ImageDraw, thing: Thing, size: tuple[int, int]) -> None:
    ex, ey = extent(thing.kind)
    sx = thing.w * size[0] / (2 * ex) * (-1 if thing.mirrored else 1)
    sy = thing.h * size[1] / (2 * ey)
    cx, cy = thing.x * size[0], thing.y * size[1]
    cos, sin = math.cos(thing.tilt), math.sin(thing.tilt)
    dark = darker(thing.rgb, 0.78)
    line = max(1, round(0.035 * abs(sx + sy if sx > 0 else sy - sx)))
    ink = darker(thing.rgb, 0.35)
    for polygon, paint in shape(thing.kind):
        points = [(cx + sx * (x * cos - y * sin), cy + sy * (x * sin + y * cos)) for x, y in polygon]
        fill = thing.rgb if paint == "fill" else dark if paint == "dark" else paint
        canvas.polygon(points, fill=fill)
        if isinstance(paint, str):
            canvas.line([*points, points[0], points[1]], fill=ink, width=line)


def draw(scene: Scene, scale: float = 1.0, supersample: int = 2) -> Image.Image:
    """The scene as an RGB picture of scene.width × scene.height pixels, times scale."""
    width, height = round(scene.width * scale), round(scene.height * scale)
    size = (width * supersample, height * supersample)
    image = draw_background(scene, size)
    canvas = ImageDraw.Draw(image)
    for thing in scene.things:
        draw_thing(canvas, thing, size)
    return image.reduce(supersample) if supersample > 1 else image


# --- making up scenes --------------------------------------------------------------------------


def jitter(rgb: RGB, by: int, rng: random.Random) -> RGB:
    return tuple(min(255, max(0, v + rng.randint(-by, by))) for v in rgb)  # type: ignore[return-value]


def choose_names(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Kinds and colours for count things; sometimes several of a kind, or several of a colour."""
    kinds = [rng.choice(KINDS) for _ in range(count)]
    colours = [rng.choice(COLOUR_NAMES) for _ in range(count)]
    if count > 1:
        mode = rng.random()
        many = rng.randint(2, count)
        if mode < 0.22:
            kinds[:many] = [kinds[0]] * many
        elif mode < 0.40:
            colours[:many] = [colours[0]] * many
        elif mode < 0.46:
            kinds[:many], colours[:many] = [kinds[0]] * many, [colours[0]] * many
        elif mode < 0.80:
            kinds = rng.sample(KINDS, count)
            colours = rng.sample(COLOUR_NAMES, count)
    names = list(zip(kinds, colours))
    rng.shuffle(names)
    return names


def place(names: list[tuple[str, str]], aspect: float, rng: random.Random) -> list[Thing] | None:
    """Puts things where they do not touch; None if luck ran out. aspect is width / height."""
    things: list[Thing] = []
    bands = [rng.uniform(0.15, 0.85)] * len(names)
    tidy = rng.random() < 0.5  # in one or two rows, or anywhere
    if tidy and rng.random() < 0.5:
        split = rng.randint(1, len(names))
        bands[:split] = [rng.uniform(0.15, 0.85)] * split
    largest = {1: 0.46, 2: 0.42, 3: 0.36, 4: 0.32}[len(names)]
    stretch = math.sqrt(aspect)
    for (kind, colour), band in zip(names, bands):
        ex, ey = extent(kind)
        for _ in range(12):
            side = rng.uniform(0.2, largest)
            w, h = side * ex / stretch, side * ey * stretch
            x, y = rng.uniform(w / 2 + 0.01, 0.99 - w / 2), rng.uniform(h / 2 + 0.01, 0.99 - h / 2)
            if tidy:
                y = min(max(band + rng.uniform(-0.05, 0.05), h / 2 + 0.01), 0.99 - h / 2)
            if all(abs(x - t.x) > (w + t.w) / 2 + 0.02 or abs(y - t.y) > (h + t.h) / 2 + 0.02 for t in things):
                break
        else:
            return None
        rgb = jitter(COLOURS[colour], 10, rng)
        tilt = math.radians(rng.uniform(-9, 9))
        things.append(Thing(kind, colour, x, y, w, h, rgb, rng.random() < 0.5, tilt))
    return things


def rows(things: tuple[Thing, ...]) -> list[list[Thing]] | None:
    """The things as rows from top to bottom, each from left to right; None where that is not plain to see."""
    by_height = sorted(things, key=lambda t: t.y)
    result = [[by_height[0]]]
    for thing in by_height[1:]:
        gap = thing.y - result[-1][-1].y
        if gap >= 0.18:
            result.append([thing])
        elif gap <= 0.09 and thing.y - result[-1][0].y <= 0.12:
            result[-1].append(thing)
        else:
            return None
    for row in result:
        row.sort(key=lambda t: t.x)
        if any(b.x - a.x < 0.16 for a, b in zip(row, row[1:])):
            return None
    return result


def layout(things: tuple[Thing, ...]) -> list[list[Thing]] | None:
    """What a caption goes by: rows; but two things are plainly side by side or one above the other."""
    if len(things) != 2:
        return rows(things)
    a, b = things
    if relation(a, b) in ("left", "right"):
        return [sorted(things, key=lambda t: t.x)]
    return [[t] for t in sorted(things, key=lambda t: t.y)] if relation(a, b) else None


def order_of_mention(layout: list[list[Thing]]) -> list[Thing]:
    """The things in the order in which a caption names them."""

    def told(row: list[Thing]) -> list[Thing]:
        return [row[1], row[0], row[2]] if len(row) == 3 else row

    if len(layout) > 2:
        return [t for row in layout for t in row]
    if len(layout) == 2 and len(layout[0]) == 1 and len(layout[1]) > 1:
        return told(layout[1]) + layout[0]
    return told(layout[0]) + [t for row in layout[1:] for t in row]


def make_scene(rng: random.Random) -> Scene:
    """A scene whose things can be told apart and whose caption is beyond doubt."""
    aspect = math.exp(rng.uniform(math.log(0.68), math.log(1.6)))
    area = rng.uniform(260, 520) ** 2
    width = min(640, max(200, round(math.sqrt(area * aspect))))
    height = min(640, max(200, round(math.sqrt(area / aspect))))
    count = rng.choice((1, 2, 2, 3, 3, 3, 4, 4, 4))
    names = choose_names(count, rng)
    while True:
        things = place(names, width / height, rng)
        if things is not None and layout(tuple(things)) is not None:
            break
    horizon = None
    style = rng.random()
    if style < 0.3:
        background = (jitter(rng.choice(BACKDROPS), 10, rng),) * 4
    elif style < 0.6:
        first, second = (jitter(rng.choice(BACKDROPS), 10, rng) for _ in range(2))
        background = rng.choice([(first, first, second, second), (first, second, first, second), (first, first, first, second)])
    else:
        sky = jitter(rng.choice(SKIES), 10, rng)
        pale = tuple(min(255, v + 18) for v in sky)
        background = (sky, sky, pale, pale)
        horizon = rng.uniform(0.5, 0.85)
    near = jitter(rng.choice(GROUNDS), 10, rng)
    ground = (near, tuple(min(255, v + 14) for v in near))
    noise = rng.choice((0, 0, rng.uniform(0.03, 0.12)))
    return Scene(width, height, background, horizon, ground, noise, rng.getrandbits(32), tuple(things))  # type: ignore[arg-type]


def scene_rng(seed: int, index: int, purpose: str = "scene") -> random.Random:
    """The random numbers of one scene: independent of how many others are drawn."""
    return random.Random(f"ocelli {purpose} {seed} {index}")


# --- captions ----------------------------------------------------------------------------------


def caption(scene: Scene) -> str:
    """One English sentence that names every thing and its colour; scenes that look alike get the same one."""
    lines = layout(scene.things)
    assert lines is not None
    named: set[str] = set()

    def a(thing: Thing) -> str:
        article = "another" if thing.name in named else "an" if thing.name[0] in "aeiou" else "a"
        named.add(thing.name)
        return f"{article} {thing.name}"

    def listed(things: list[Thing]) -> str:
        names = []
        for name, group in itertools.groupby(things, key=lambda t: t.name):
            same = list(group)
            if len(same) == 1:
                names.append(a(same[0]))
            else:
                names.append(f"{NUMBERS[len(same)]} {'more ' if name in named else ''}{plural(name)}")
                named.add(name)
        return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]

    def does(thing: Thing) -> str:
        return VERBS[thing.kind][0]

    def row_sentence(row: list[Thing]) -> str:
        if len(row) == 2:
            left, right = row
            if left.name == right.name:
                named.add(left.name)
                return f"two {plural(left.name)} {VERBS[left.kind][1]} side by side"
            return f"{a(left)} {does(left)} to the left of {a(right)}"
        if len(row) == 3:
            left, middle, right = row
            if left.name == right.name:
                if left.name == middle.name:
                    return f"{listed(row)} {VERBS[left.kind][1]} in a row"
                return f"{a(middle)} {does(middle)} between {listed([left, right])}"
            return f"{a(middle)} {does(middle)} between {a(left)} on the left and {a(right)} on the right"
        return f"{listed(row)} are lined up from left to right"

    if len(scene.things) == 1:
        sentence = f"{a(scene.things[0])} {does(scene.things[0])} alone"
    elif len(lines) == 1:
        sentence = row_sentence(lines[0])
    elif len(lines) > 2:
        top, bottom = lines[0], lines[-1]
        middle = [t for row in lines[1:-1] for t in row]
        verb = "are" if len(top) > 1 and top[0].name == top[1].name else "is"
        sentence = f"there {verb} {listed(top)} at the top, {listed(middle)} in the middle and {listed(bottom)} at the bottom"
    elif len(lines[0]) == 1 and len(lines[1]) == 1:
        sentence = f"{a(lines[0][0])} {does(lines[0][0])} above {a(lines[1][0])}"
    elif len(lines[0]) == 1:
        sentence = f"{row_sentence(lines[1])} under {a(lines[0][0])}"
    else:
        sentence = f"{row_sentence(lines[0])} above {listed(lines[1])}"
    return sentence[0].upper() + sentence[1:] + "."


# --- questions ---------------------------------------------------------------------------------


def plural(name: str) -> str:
    return name if name.endswith("fish") else name + "s"


def relation(a: Thing, b: Thing) -> str | None:
    """Where a is, seen from b: left, right, above or below; None where one could argue."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) >= 0.15 and abs(dx) >= 1.6 * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) >= 0.15 and abs(dy) >= 1.6 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def the(thing: Thing, scene: Scene, rng: random.Random) -> str | None:
    """A way to speak of this thing that fits no other: "the house", "the red house", "the red thing"."""
    others = [t for t in scene.things if t is not thing]
    ways = []
    if all(t.kind != thing.kind for t in others):
        ways += [f"the {thing.kind}"] * 5
    if all(t.name != thing.name for t in others):
        ways += [f"the {thing.name}"] * 3
    if all(t.colour != thing.colour for t in others):
        ways += [f"the {thing.colour} thing"] * 2
    return rng.choice(ways) if ways else None


PHRASES: dict[str, list[str]] = {
    "what.single": [
        "What is in the picture?", "What is in the image?", "What does the picture show?", "What can you see here?",
        "What is this?", "Which thing is in the picture?", "What is shown here?", "Name the thing in the picture.",
    ],
    "what.colour": [
        "What is the {colour} thing?", "What is {colour}?", "Which thing is {colour}?", "What kind of thing is {colour}?",
        "What is the {colour} object?", "Name the {colour} thing.", "Tell me what the {colour} thing is.",
        "The {colour} thing is what?", "Which object is {colour} in this picture?",
    ],
    "what.beside": [
        "What is {where} {the}?", "Which thing is {where} {the}?", "What do you see {where} {the}?",
        "What can be seen {where} {the}?", "Name the thing {where} {the}.", "What is the thing {where} {the}?",
        "Tell me what is {where} {the}.", "Which object is {where} {the}?", "What is there {where} {the}?",
    ],
    "what.most": [
        "What is {most}?", "Which thing is {most}?", "What do you see {most}?", "Name the thing {most}.",
        "What is the thing {most}?", "Tell me what is {most}.", "Which object is {most}?", "What is there {most}?",
    ],
    "colour": [
        "What colour is {the}?", "What color is {the}?", "Which colour is {the}?", "What is the colour of {the}?",
        "What is the color of {the}?", "Which color does {the} have?", "Tell me the colour of {the}.",
        "{The} has which colour?", "What colour does {the} have?", "{The} is what color?",
    ],
    "count": [
        "How many {things} are there?", "How many {things} are in the picture?", "How many {things} do you see?",
        "How many {things} can you see?", "Count the {things}.", "What is the number of {things}?",
        "How many {things} does the picture show?", "How many {things} are in the image?", "Tell me how many {things} there are.",
    ],
    "where": [
        "Where is {the} relative to {other}?", "Where is {the}, seen from {other}?", "Where is {the} compared with {other}?",
        "On which side of {other} is {the}?", "Is {the} left, right, above or below {other}?",
        "Compared with {other}, where is {the}?", "Where does {the} lie relative to {other}?",
        "In which direction from {other} is {the}?", "Seen from {other}, where is {the}?", "From {other}, where is {the}?",
    ],
    "yesno.exists": [
        "Is there {a}?", "Is there {a} in the picture?", "Do you see {a}?", "Can you see {a}?", "Does the picture show {a}?",
        "Is {a} in the picture?", "Is there {a} here?", "Does the image have {a}?", "Is {a} shown in the image?",
    ],
    "yesno.colour": [
        "Is {the} {colour}?", "Is the colour of {the} {colour}?", "Is the color of {the} {colour}?", "Does {the} look {colour}?",
        "Would you say that {the} is {colour}?", "{The} is {colour}, right?", "Is {the} {colour} in this picture?",
        "Is it true that {the} is {colour}?",
    ],
    "yesno.where": [
        "Is {the} {where} {other}?", "Is {the} {where} {other} in the picture?", "Can you see {the} {where} {other}?",
        "Would you say that {the} is {where} {other}?", "Is it true that {the} is {where} {other}?",
        "{The} is {where} {other}, right?", "Does {the} lie {where} {other}?", "Do you see {the} {where} {other}?",
    ],
    "yesno.count": [
        "Are there {number} {things}?", "Do you see {number} {things}?", "Are there {number} {things} in the picture?",
        "Can you see {number} {things}?", "Is the number of {things} {number}?", "Does the picture show {number} {things}?",
        "Would you say that there are {number} {things}?", "Is it true that there are {number} {things}?",
    ],
    "caption": [
        "Describe the picture.", "Describe the image.", "What do you see?", "Write a caption.", "Caption this image.",
        "Describe this scene.", "Tell me about the picture.", "What is going on in this picture?", "Describe what you see.",
        "Give a caption for this picture.", "Please describe the image.", "Write a caption for the image.",
        "Describe the image in one sentence.", "What does this scene show?",
    ],
}

BESIDE = {
    "left": ["to the left of", "left of", "on the left of"],
    "right": ["to the right of", "right of", "on the right of"],
    "above": ["above", "over"],
    "below": ["below", "under", "beneath"],
}
MOST = {
    "left": ["furthest to the left", "on the far left", "at the left edge"],
    "right": ["furthest to the right", "on the far right", "at the right edge"],
    "above": ["at the top", "highest up", "at the very top"],
    "below": ["at the bottom", "lowest down", "at the very bottom"],
}
NUMBERS = ["zero", "one", "two", "three", "four"]

Question = dict[str, object]
Asker = Callable[[Scene, random.Random], "tuple[str, str] | None"]


def phrase(key: str, rng: random.Random, **words: str) -> str:
    if "the" in words:
        words["The"] = words["the"][0].upper() + words["the"][1:]
    return rng.choice(PHRASES[key]).format(**words)


def loosen(question: str, rng: random.Random) -> str:
    """People do not always mind their capitals and full stops."""
    luck = rng.random()
    if luck < 0.10:
        return question[0].lower() + question[1:]
    if luck < 0.18:
        return question[0].lower() + question[1:].rstrip("?.")
    if luck < 0.22:
        return question.rstrip("?.")
    return question


def ask_what(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    things = scene.things
    if len(things) == 1 and rng.random() < 0.6:
        return phrase("what.single", rng), f"a {things[0].kind}"
    way = rng.random()
    if way < 0.25:
        thing = rng.choice(things)
        if any(t is not thing and t.colour == thing.colour for t in things):
            return None
        return phrase("what.colour", rng, colour=thing.colour), f"a {thing.kind}"
    where = rng.choice(list(STEP))
    sx, sy = STEP[where]
    if way < 0.40 and len(things) > 1:
        along = sorted(things, key=lambda t: sx * t.x + sy * t.y)
        if abs(sx * (along[-1].x - along[-2].x) + sy * (along[-1].y - along[-2].y)) < 0.15:
            return None
        return phrase("what.most", rng, most=rng.choice(MOST[where])), f"a {along[-1].kind}"
    thing = rng.choice(things)
    name = the(thing, scene, rng)
    others = [t for t in things if t is not thing]
    there = [t for t in others if relation(t, thing) == where]
    doubtful = [
        t for t in others
        if relation(t, thing) is None and sx * (t.x - thing.x) + sy * (t.y - thing.y) > -0.05
    ]
    if name is None or len(there) != 1 or doubtful:
        return None
    return phrase("what.beside", rng, where=rng.choice(BESIDE[where]), the=name), f"a {there[0].kind}"


def ask_colour(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    thing = rng.choice(scene.things)
    if any(t is not thing and t.kind == thing.kind for t in scene.things):
        return None
    name = "the thing" if len(scene.things) == 1 and rng.random() < 0.2 else f"the {thing.kind}"
    return phrase("colour", rng, the=name), thing.colour


def countable(scene: Scene, rng: random.Random) -> tuple[str, int]:
    """Something to count, and how many there are of it."""
    way = rng.random()
    if way < 0.25:
        return rng.choice(["things", "things", "objects"]), len(scene.things)
    if way < 0.62:
        kind = rng.choice(scene.things).kind if rng.random() < 0.8 else rng.choice(KINDS)
        return plural(kind), sum(t.kind == kind for t in scene.things)
    colour = rng.choice(scene.things).colour if rng.random() < 0.8 else rng.choice(COLOUR_NAMES)
    return f"{colour} {rng.choice(['things', 'things', 'objects'])}", sum(t.colour == colour for t in scene.things)


def ask_count(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    things, count = countable(scene, rng)
    return phrase("count", rng, things=things), str(count)


def pair(scene: Scene, rng: random.Random) -> tuple[str, str, str] | None:
    """Two things that can be spoken of, and where the first is, seen from the second."""
    if len(scene.things) < 2:
        return None
    a, b = rng.sample(scene.things, 2)
    name, other, where = the(a, scene, rng), the(b, scene, rng), relation(a, b)
    return (name, other, where) if name and other and where else None


def ask_where(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    found = pair(scene, rng)
    if found is None:
        return None
    name, other, where = found
    return phrase("where", rng, the=name, other=other), where


def ask_exists(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    present = rng.random() < 0.5
    thing = rng.choice(scene.things)
    kind, colour = thing.kind, thing.colour
    if rng.random() < 0.5:
        if not present:
            kind = rng.choice([k for k in KINDS if all(t.kind != k for t in scene.things)])
        return phrase("yesno.exists", rng, a=f"a {kind}"), "yes" if present else "no"
    if not present:
        if rng.random() < 0.6:
            colour = rng.choice([c for c in COLOUR_NAMES if all(t.kind != kind or t.colour != c for t in scene.things)])
        else:
            kind = rng.choice([k for k in KINDS if all(t.kind != k or t.colour != colour for t in scene.things)])
    article = "an" if colour[0] in "aeiou" else "a"
    return phrase("yesno.exists", rng, a=f"{article} {colour} {kind}"), "yes" if present else "no"


def ask_is_colour(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    thing = rng.choice(scene.things)
    if any(t is not thing and t.kind == thing.kind for t in scene.things):
        return None
    if rng.random() < 0.5:
        return phrase("yesno.colour", rng, the=f"the {thing.kind}", colour=thing.colour), "yes"
    others = [t.colour for t in scene.things if t.colour != thing.colour]
    if not others or rng.random() < 0.5:
        others = [c for c in COLOUR_NAMES if c != thing.colour]
    return phrase("yesno.colour", rng, the=f"the {thing.kind}", colour=rng.choice(others)), "no"


def ask_is_where(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    found = pair(scene, rng)
    if found is None:
        return None
    name, other, where = found
    truth = rng.random() < 0.5
    if not truth:
        where = OPPOSITE[where] if rng.random() < 0.7 else rng.choice([w for w in STEP if w != where])
    return phrase("yesno.where", rng, the=name, other=other, where=rng.choice(BESIDE[where])), "yes" if truth else "no"


def ask_is_number(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    things, count = countable(scene, rng)
    claimed = count
    if rng.random() < 0.5:
        claimed = rng.choice([n for n in (2, 3, 4) if n != count])
    if claimed < 2 or (count < 2 and rng.random() < 0.5):
        return None
    return phrase("yesno.count", rng, things=things, number=NUMBERS[claimed]), "yes" if claimed == count else "no"


def ask_yesno(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    asker = rng.choice([ask_exists, ask_exists, ask_is_colour, ask_is_where, ask_is_where, ask_is_number])
    return asker(scene, rng)


PLAN: list[tuple[str, Asker, int]] = [
    ("what", ask_what, 2),
    ("colour", ask_colour, 1),
    ("count", ask_count, 2),
    ("where", ask_where, 2),
    ("yesno", ask_yesno, 2),
]


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Up to ten questions about a scene, each with its one right answer."""
    found: list[Question] = []
    for kind, asker, wanted in PLAN:
        asked: set[str] = set()
        for _ in range(6 * wanted):
            got = asker(scene, rng)
            if got is not None and got[0] not in asked:
                asked.add(got[0])
                found.append({"question": loosen(got[0], rng), "answer": got[1], "type": kind})
                if len(asked) == wanted:
                    break
    found.append({
        "question": loosen(phrase("caption", rng), rng),
        "answer": caption(scene),
        "type": "caption",
        "mentions": list(dict.fromkeys(t.name for t in scene.things)),
    })
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws scenes and writes questions about them.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="how many scenes")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the pictures and questions.jsonl")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "questions.jsonl", "w", encoding="utf-8") as out:
        for index in range(args.count):
            scene = make_scene(scene_rng(args.seed, index))
            name = f"scene-{index:05}.png"
            draw(scene).save(args.out / name)
            for question in questions(scene, scene_rng(args.seed, index, "questions")):
                out.write(json.dumps({"image": name, **question}) + "\n")


if __name__ == "__main__":
    main()
