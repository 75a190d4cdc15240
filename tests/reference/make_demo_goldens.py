#!/usr/bin/env python3
"""Makes tests/golden/demo.json and demo.safetensors: what the reference answers with the demo model.

    make_demo_goldens.py [--model DIR] [--scenes DIR] [--out DIR]

20 questions about the sample scenes, each with 64 greedy tokens, whatever comes after the end token; and
for the first question some stages between. To be run again whenever assets/demo changes. A question whose
tokens hang on a near-tie is passed over for the next.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CodeGenTokenizer, CodeGenTokenizerFast

from reference_model import Reference, Stages, made_with, prompt, prompt_ids, top_gap

ROOT = Path(__file__).resolve().parent.parent.parent
COUNT = 20
STEPS = 64
LEAST_GAP = 1e-3  # between the best and the second logit of every step
LARGEST = 600_000  # bytes of demo.safetensors

QUESTIONS = [
    "Describe the picture.",
    "What is in the picture?",
    "How many things are there?",
    "Is there a tree?",
    "What colour is the house?",
    "Where is the sun?",
    "Describe this image.",
    "How many red things are there?",
    "Is there a blue fish?",
    "What do you see?",
    "Is the star to the left of the boat?",
    "what colours can you see",
]


class Tokenizer:
    """The model's tokenizer, Hugging Face's slow and fast one, which must agree."""

    def __init__(self, folder: Path) -> None:
        self.slow = CodeGenTokenizer.from_pretrained(folder)
        self.fast = CodeGenTokenizerFast.from_pretrained(folder, from_slow=True)

    def ids(self, text: str) -> list[int]:
        slow, fast = prompt_ids(self.slow, text), prompt_ids(self.fast, text)
        assert slow == fast, f"the slow and the fast tokenizer disagree about {text!r}: {slow} and {fast}"
        return slow

    def answer(self, tokens: list[int]) -> str:
        """The text before the first end token."""
        if self.slow.eos_token_id in tokens:
            tokens = tokens[: tokens.index(self.slow.eos_token_id)]
        return self.slow.decode(tokens, clean_up_tokenization_spaces=False).strip()


def candidates(scenes: Path) -> list[tuple[Path, str]]:
    """Every question about every picture, so that any run of them mixes both."""
    pictures = sorted(scenes.glob("*.png"))
    if not pictures:
        raise SystemExit(f"{scenes} holds no PNG pictures")
    rounds = itertools.product(range(len(pictures)), range(len(QUESTIONS)))
    return [(pictures[(q + r) % len(pictures)], QUESTIONS[q]) for r, q in rounds]


def shown(path: Path) -> str:
    """A path as demo.json writes it: relative to the repository where it lies inside."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def ask(
    model: Reference, tokenizer: Tokenizer, picture: Path, question: str, stages: Stages
) -> tuple[dict[str, object], float]:
    """One line of demo.json, and its least distance between a best and a second logit."""
    ids = tokenizer.ids(prompt(question))
    with Image.open(picture) as image:
        pixels = model.pixels(image.convert("RGB"))
    stages["pixels.0"] = pixels
    stages["fused"] = model.fuse(ids, [model.image_rows(pixels, 0, stages)])
    model.logits(stages["fused"], stages)
    tokens, stages["step_logits"] = model.greedy(stages["fused"], STEPS)
    line: dict[str, object] = {
        "image": shown(picture),
        "question": question,
        "prompt_ids": ids,
        "tokens": tokens,
        "answer": tokenizer.answer(tokens),
    }
    return line, top_gap(stages["step_logits"])


def worth_keeping(model: Reference, stages: Stages) -> Stages:
    """Few stages, by the names that the random models' goldens use."""
    tower = f"vision.block.{model.config.vision_blocks - 1}.0"
    decoder = f"decoder.block.{model.config.text.num_hidden_layers - 1}"
    kept = {name: stages[name] for name in ("vision.embeddings.0", tower, "connector.0", "fused", decoder)}
    kept["logits.last"] = stages["logits"][-1:]
    return {name: value.contiguous() for name, value in kept.items()}


def write(out: Path, lines: list[dict[str, object]], stages: dict[str, Tensor]) -> None:
    body = ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (out / "demo.json").write_text(f"[\n{body}\n]\n", encoding="utf-8")
    save_file(stages, out / "demo.safetensors", metadata=made_with())
    size = (out / "demo.safetensors").stat().st_size
    if size > LARGEST:
        raise SystemExit(f"demo.safetensors has {size} bytes, more than {LARGEST}: keep fewer stages")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes tests/golden/demo.json and demo.safetensors.")
    parser.add_argument("--model", type=Path, default=ROOT / "assets" / "demo")
    parser.add_argument("--scenes", type=Path, default=ROOT / "assets" / "scenes")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = Reference(args.model), Tokenizer(args.model)
    lines: list[dict[str, object]] = []
    first: dict[str, Tensor] = {}
    for picture, question in candidates(args.scenes):
        stages: Stages = {}
        line, gap = ask(model, tokenizer, picture, question, stages)
        kept = gap >= LEAST_GAP
        print(f"{'' if kept else 'PASSED OVER '}{line['image']} {question!r} {line['answer']!r} gap {gap:.4f}")
        if not kept:
            continue
        first = first or worth_keeping(model, stages)
        lines.append(line)
        if len(lines) == COUNT:
            break
    else:
        raise SystemExit(f"only {len(lines)} of {COUNT} questions without a near-tie: add pictures or questions")
    write(args.out, lines, first)


if __name__ == "__main__":
    main()
