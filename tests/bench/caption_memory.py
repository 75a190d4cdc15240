#!/usr/bin/env python3
"""Captions many small pictures and watches the memory of the process that does it.

    caption_memory.py build/release/app/ocelli --count 10000

draws the pictures (the same for the same seed, each another), captions them with the bundled model, and
prints, at every tenth of them, how many are done and what the process has in memory: of its own (RssAnon)
and in all (VmRSS, with the pages of files that are mapped). Fails when memory of its own grows by more
than --allow MB after the first tenth, or exceeds what was foretold. Standard library only.
"""

from __future__ import annotations

import argparse
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

COLOURS = [(214, 32, 36), (250, 222, 40), (36, 150, 52), (36, 84, 214), (26, 26, 28), (250, 250, 250)]


def png(width: int, height: int, rows: list[bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def scene(seed: int) -> bytes:
    """A few squares on a plain ground, of a size that varies."""
    draw = random.Random(seed)
    width, height = draw.randint(40, 120), draw.randint(40, 120)
    ground = bytes((draw.randint(140, 230), draw.randint(180, 220), draw.randint(180, 230)))
    rows = [bytearray(ground * width) for _ in range(height)]
    for _ in range(draw.randint(1, 3)):
        colour, side = bytes(draw.choice(COLOURS)), draw.randint(8, 20)
        x, y = draw.randint(0, width - side), draw.randint(0, height - side)
        for row in rows[y : y + side]:
            row[3 * x : 3 * (x + side)] = colour * side
    return png(width, height, [bytes(row) for row in rows])


def kilobytes(process: int, key: str) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


def watch(command: list[str], journal: Path, count: int) -> tuple[list[int], str]:
    """Runs the command; the memory of its own at every tenth, in kB, and what it said."""
    own: list[int] = []
    started = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        done, position = 0, 0
        while process.poll() is None:
            time.sleep(0.05)
            if journal.exists():
                with journal.open("rb") as file:
                    file.seek(position)
                    added = file.read()
                done, position = done + added.count(b"\n"), position + len(added)
            memory = kilobytes(process.pid, "RssAnon")
            if memory == 0 or done < (len(own) + 1) * count / 10:
                continue
            own.append(memory)
            print(f"{done:>8} done {time.monotonic() - started:>8.1f} s {memory / 1e3:>9.1f} MB of its own"
                  f" {kilobytes(process.pid, 'VmRSS') / 1e3:>9.1f} MB in all", flush=True)
        said = process.stderr.read() if process.stderr else ""
        if process.returncode != 0:
            sys.exit(f"{command[0]} ended with {process.returncode}: {said}")
    return own, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--allow", type=float, default=8, help="MB of growth after the first tenth")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        pictures.mkdir()
        for i in range(options.count):
            Path(pictures, f"{i:06}.png").write_bytes(scene(i))
        output = Path(folder, "captions.jsonl")
        command = [options.program, "caption", str(pictures), "-o", str(output)]
        own, said = watch(command, Path(f"{output}.journal"), options.count)
        lines = len(output.read_text().splitlines())
    print(said.strip().splitlines()[-1])
    if lines != options.count:
        sys.exit(f"{lines} records of {options.count} pictures")
    forecast = re.search(r"about ([\d.]+) GB", said)
    if forecast and max(own) / 1e6 > float(forecast[1]):
        sys.exit(f"{max(own) / 1e3:.1f} MB exceed the {forecast[1]} GB that were foretold")
    growth = (max(own[1:]) - own[0]) / 1e3
    print(f"after the first tenth: {growth:+.1f} MB")
    if growth > options.allow:
        sys.exit("memory grows")


if __name__ == "__main__":
    main()
