#!/usr/bin/env python3
"""Asks the exported model every question of a folder that scenes.py drew, decodes greedily, and counts.

    scenes.py --seed 1000 --count 150 --out /tmp/scenes
    evaluate.py ../demo /tmp/scenes [--wrong 20]

Each question stands alone behind its picture, read from its PNG; the weights are the fp16 ones of the file, the
arithmetic is fp32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import export
import pool
import text
from model import KeysValues, TinyLlava, to_pixels_tensor


class Answerer:
    def __init__(self, folder: Path) -> None:
        self.model: TinyLlava = export.read(folder)
        self.encoder = text.Encoder(folder)
        self.phi = self.model.language_model

    def see(self, path: Path) -> tuple[Tensor, list[KeysValues]]:
        """Prefix and image through the decoder: their positions [1, rows], their keys and values."""
        with Image.open(path) as image:
            pixels = to_pixels_tensor(torch.from_numpy(pool.to_pixels(image).copy())[None])
        prefix = self.phi.embed_tokens(torch.tensor([self.encoder.prefix]))
        rows = torch.cat((prefix, self.model.image_rows(self.model.vision_tower(pixels))), 1)
        positions = torch.arange(rows.shape[1])[None]
        return positions, self.phi(rows, positions)[1]

    def answer(self, seen: tuple[Tensor, list[KeysValues]], question: str, most: int = 64) -> str:
        """Greedy decoding, with the picture's rows kept between questions."""
        positions, past = seen
        ids = list(self.encoder.encode(f"\n{question} ASSISTANT:"))
        said: list[int] = []
        known = positions.shape[1]
        while len(said) < most:
            n = len(ids)
            mask = torch.ones(n, known + n, dtype=torch.bool).tril(known)[None, None]
            rows = self.phi.embed_tokens(torch.tensor([ids]))
            out, past = self.phi(rows, torch.arange(known, known + n)[None], mask, past)
            best = int(self.phi.logits(out[:, -1]).argmax())
            if best == self.encoder.end:
                break
            said.append(best)
            ids, known = [best], known + n
        return self.encoder.decode(said).strip()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Exact-match accuracy by type, and captions that name everything.")
    parser.add_argument("model", type=Path)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    answerer = Answerer(args.model)
    lines = [json.loads(line) for line in (args.scenes / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    tally: dict[str, list[bool]] = {}
    named: list[bool] = []
    picture, seen = "", None
    for line in lines:
        if line["image"] != picture:
            picture = line["image"]
            seen = answerer.see(args.scenes / picture)
        said = answerer.answer(seen, line["question"])
        right = said == line["answer"]
        tally.setdefault(line["type"], []).append(right)
        if line["type"] == "caption":
            named.append(all(m in said for m in line["mentions"]))
        if not right and args.wrong > 0:
            args.wrong -= 1
            print(f"{picture}: {line['question']}\n    said   {said}\n    wanted {line['answer']}")
    for kind, hits in sorted(tally.items()):
        print(f"{kind:8} {sum(hits) / len(hits):7.2%} of {len(hits)}")
    short = [hit for kind, hits in tally.items() if kind != "caption" for hit in hits]
    for label, hits in [("all but captions", short), ("captions that name every thing and colour", named)]:
        if hits:
            print(f"{label} {sum(hits) / len(hits):.2%} of {len(hits)}")


if __name__ == "__main__":
    main()
