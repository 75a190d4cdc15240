#!/usr/bin/env python3
"""Checks that transformers computes what model.py computes, on the exported weights in fp32, and that its
CodeGenTokenizer reads the exported vocabulary as text.py does.

    verify.py ../demo
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CodeGenTokenizer, PhiConfig, PhiForCausalLM, SiglipVisionConfig, SiglipVisionModel

import export
import pool
import scenes
import text
from model import to_pixels_tensor

SEED = 4


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}


def references(folder: Path) -> tuple[SiglipVisionModel, PhiForCausalLM]:
    """The two transformers models, filled from the exported file."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    tower = SiglipVisionModel(SiglipVisionConfig(**config["vision_config"])).eval()
    missing, unexpected = tower.load_state_dict(part(tensors, "vision_tower._vision_tower."), strict=False)
    unused = f"vision_model.encoder.layers.{config['vision_config']['num_hidden_layers'] - 1}."
    allowed = (unused, "vision_model.post_layernorm", "vision_model.head")
    assert not unexpected and all(name.startswith(allowed) for name in missing), (missing, unexpected)
    phi = PhiForCausalLM(PhiConfig(**config["text_config"])).eval()
    phi.load_state_dict(part(tensors, "language_model."))
    return tower, phi


@torch.no_grad()
def main() -> None:
    folder = Path(sys.argv[1])
    model, encoder = export.read(folder), text.Encoder(folder)
    tower, phi = references(folder)
    tokenizer = CodeGenTokenizer.from_pretrained(folder)
    worst = {"tower": 0.0, "logits": 0.0}
    same_text = same_tokens = count = 0
    for i in range(20):
        scene = scenes.make_scene(scenes.scene_rng(SEED, i))
        question = str(scenes.questions(scene, scenes.scene_rng(SEED, i, "questions"))[i % 5]["question"])
        pixels = to_pixels_tensor(torch.from_numpy(np.array(pool.to_pixels(scenes.draw(scene))))[None])
        features = model.vision_tower(pixels)
        expected = tower(pixels, output_hidden_states=True).hidden_states[-2]
        worst["tower"] = max(worst["tower"], (features - expected).abs().max().item())

        ids = [encoder.encode(text.BEFORE_IMAGE), encoder.encode(f"\n{question} ASSISTANT:")]
        theirs = [tokenizer(piece).input_ids for piece in (text.BEFORE_IMAGE, f"\n{question} ASSISTANT:")]
        same_text += [list(piece) for piece in ids] == theirs
        embed = model.language_model.embed_tokens
        rows = torch.cat((embed(torch.tensor(ids[:1])), model.image_rows(features), embed(torch.tensor(ids[1:]))), 1)
        out, _ = model.language_model(rows, torch.arange(rows.shape[1])[None])
        logits, expected = model.language_model.logits(out), phi(inputs_embeds=rows).logits
        worst["logits"] = max(worst["logits"], (logits - expected).abs().max().item())
        same_tokens += bool((logits.argmax(-1) == expected.argmax(-1)).all())
        count += 1
    print("largest difference: " + ", ".join(f"{name} {value:.2e}" for name, value in worst.items()))
    print(f"tokenised alike: {same_text} of {count}; same best token in every row: {same_tokens} of {count}")


if __name__ == "__main__":
    main()
