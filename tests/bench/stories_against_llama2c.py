#!/usr/bin/env python3
"""Tokens a second of `ocelli story` against llama2.c's run.c, on random weights of the stories15M shape.

    stories_against_llama2c.py --ocelli build/release/app/ocelli --llama2c DIR

DIR is a checkout of llama2.c; its run.c is built with -Ofast -fopenmp -march=native. All run with --threads threads,
taking turns, greedily, from nothing to the full context; the medians of their own figures are compared. Beside them
stands what the machine allows: a program that only reads as many bytes as the weights have, in the same turns, and so
the tokens a second, and the ratio, that nothing exceeds which reads each weight once a token.
"""

from __future__ import annotations

import argparse
import array
import os
import random
import re
import statistics
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO

DIM, HIDDEN, LAYERS, HEADS, VOCAB, CONTEXT = 288, 768, 6, 6, 32000, 256
GROUP = 32  # values that share a scale in the Q8_0 file; llama2.c's default 64 does not divide 288
READ_SECONDS = 0.3
MATRICES = [VOCAB * DIM] + LAYERS * 4 * [DIM * DIM] + LAYERS * 3 * [DIM * HIDDEN]  # their sizes, in the file's order


class Noise:
    """Random values; a block of them is made once and read from ever new places."""

    def __init__(self) -> None:
        rng = random.Random(1)
        self.rng = rng
        self.floats = array.array("f", (rng.gauss(0, 0.05) for _ in range(1 << 18)))
        self.bytes = bytes(rng.randrange(-127, 128) & 0xFF for _ in range(1 << 18))

    def _write(self, file: BinaryIO, block: bytes, size: int, unit: int) -> None:
        while size > 0:
            begin = self.rng.randrange(len(block) // unit // 2) * unit
            part = block[begin : begin + size]
            file.write(part)
            size -= len(part)

    def write_floats(self, file: BinaryIO, count: int) -> None:
        self._write(file, self.floats.tobytes(), 4 * count, 4)

    def write_int8(self, file: BinaryIO, count: int) -> None:
        self._write(file, self.bytes, count, 1)
        file.write(struct.pack("f", 0.05 / 73) * (count // GROUP))


def ones(file: BinaryIO, count: int) -> None:
    file.write(struct.pack("f", 1) * count)


def write_fp32(path: Path, noise: Noise) -> None:
    """Version 0, tied."""
    with path.open("wb") as file:
        file.write(struct.pack("7i", DIM, HIDDEN, LAYERS, HEADS, HEADS, VOCAB, CONTEXT))
        noise.write_floats(file, VOCAB * DIM)
        ones(file, LAYERS * DIM)
        noise.write_floats(file, LAYERS * 4 * DIM * DIM)
        ones(file, LAYERS * DIM)
        noise.write_floats(file, LAYERS * 3 * DIM * HIDDEN)
        ones(file, DIM)
        noise.write_floats(file, CONTEXT * DIM // HEADS)  # the two legacy rotary tables


def write_q8(path: Path, noise: Noise) -> None:
    """Version 2, tied."""
    with path.open("wb") as file:
        head = struct.pack("<Ii7i", 0x616B3432, 2, DIM, HIDDEN, LAYERS, HEADS, HEADS, VOCAB, CONTEXT)
        file.write((head + struct.pack("<Bi", 1, GROUP)).ljust(256, b"\0"))
        ones(file, (2 * LAYERS + 1) * DIM)
        for size in MATRICES:
            noise.write_int8(file, size)


def write_tokenizer(path: Path) -> None:
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{i:02X}>" for i in range(256)), " "]
    pieces += [f" w{i}" for i in range(VOCAB - len(pieces))]
    with path.open("wb") as file:
        file.write(struct.pack("i", max(map(len, pieces))))
        for i, piece in enumerate(pieces):
            file.write(struct.pack("fi", -i, len(piece)) + piece.encode())


def weight_bytes(bits: int, group: int = 0) -> float:
    """Of all matrices, with an fp32 scale for every group."""
    return sum(MATRICES) * (bits / 8 + (4 / group if group else 0))


def read_bytes_per_second(reader: Path, size: float, threads: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [str(reader), str(size / 1e6), str(READ_SECONDS)]
    return 1e9 * float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def tokens_per_second(command: list[str], threads: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    # Nobody reads along: on two cores a reader would take turns with the threads.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    run = subprocess.run(command, env=environment, check=False, **quiet)
    speed = re.search(rb"achieved tok/s: ([0-9.]+)", run.stderr)
    if run.returncode != 0 or speed is None:
        raise SystemExit(f"{command}: {run.stderr.decode()}")
    return float(speed[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares ocelli story with llama2.c.")
    parser.add_argument("--ocelli", type=Path, required=True)
    parser.add_argument("--llama2c", type=Path, required=True, help="a checkout of llama2.c")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = Noise()
        write_fp32(folder / "fp32.bin", noise)
        write_q8(folder / "q8.bin", noise)
        write_tokenizer(folder / "tokenizer.bin")
        flags = ["-Ofast", "-fopenmp", "-march=native"]
        subprocess.run(["gcc", *flags, "-o", folder / "run", args.llama2c / "run.c", "-lm"], check=True)
        ours = [str(args.ocelli), "story", "--threads", str(args.threads), "-t", "0", "-n", str(CONTEXT), "-m"]
        reader = folder / "read_limit"
        subprocess.run(["gcc", *flags, "-o", reader, Path(__file__).parent / "read_limit.c"], check=True)
        arms = {
            "run.c, fp32": [folder / "run", folder / "fp32.bin", "-z", folder / "tokenizer.bin", "-t", "0", "-n", str(CONTEXT)],
            "ocelli, fp32": [*ours, folder / "fp32.bin"],
            "ocelli, Q8_0": [*ours, folder / "q8.bin"],
            "ocelli, int8": [*ours, folder / "fp32.bin", "--weights", "int8", "--no-cache"],
            "ocelli, int4": [*ours, folder / "fp32.bin", "--weights", "int4", "--no-cache"],
        }
        # int4's classifier stays int8; 64 values share a factor of a byte.
        int4_bytes = MATRICES[0] + sum(MATRICES[1:]) * (1 / 2 + 1 / 64)
        formats = [weight_bytes(32), weight_bytes(32), weight_bytes(8, GROUP), weight_bytes(8), int4_bytes]
        sizes = dict(zip(arms, formats))
        measured: dict[str, list[float]] = {arm: [] for arm in arms}
        limits: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(args.pairs):
            for arm, command in arms.items():
                measured[arm].append(tokens_per_second([str(word) for word in command], args.threads))
                limits[arm].append(read_bytes_per_second(reader, sizes[arm], args.threads) / sizes[arm])
        base = measured["run.c, fp32"]
        for arm, figures in measured.items():
            ratio = statistics.median(a / b for a, b in zip(figures, base))
            limit = statistics.median(limits[arm])
            most = statistics.median(a / b for a, b in zip(limits[arm], base))
            print(
                f"{arm:14} {statistics.median(figures):8.1f} tok/s   {ratio:5.2f} x run.c   "
                f"reading alone: {limit * sizes[arm] / 1e9:5.1f} GB/s = {limit:7.1f} tok/s = {most:5.2f} x run.c"
            )


if __name__ == "__main__":
    main()
