#!/usr/bin/env python3
"""Makes tests/golden/models: small random models of odd shapes, and what the reference computes with them.

    make_model_goldens.py [--only NAME] [--out DIR]

Each model is a directory as it would be published, plus golden.safetensors: the pictures and ids that go
in, and every stage up to 24 greedy tokens. The weights come from seeded NumPy generators. A model whose
greedy tokens hang on a near-tie, or that is too ill-conditioned for fp32, is refused: give it another seed.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM, SiglipVisionConfig, SiglipVisionModel

from reference_model import (
    IMAGE_TOKEN,
    OLDER_PREFIXES,
    Reference,
    Stages,
    made_with,
    make_connector,
    top_gap,
    unused_tower,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "models"
STEPS = 24
LEAST_GAP = 1e-3  # between the best and the second logit of a greedy step
LEAST_DISTINCT = 8  # different tokens among the greedy ones
MOST_ERROR = 2e-5  # of fp32 against fp64, relative to a stage's largest value

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}


@dataclass(frozen=True)
class Spec:
    """A model to make. `config` is its config.json, `images` the pictures' (height, width)."""

    name: str
    seed: int
    matrices: str  # dtype of weight matrices
    vectors: str  # dtype of biases and norms
    config: dict[str, Any]
    ids: list[int]
    images: list[tuple[int, int]] = field(default_factory=list)
    unused_vision: bool = True  # does the file hold the tower's parts that are never run?
    shards: int = 1


def ids_with_images(rng_seed: int, vocab: int, pieces: list[int]) -> list[int]:
    """Random ids in pieces of the given lengths, an image between every two of them."""
    rng = np.random.Generator(np.random.PCG64(rng_seed))
    ids: list[int] = []
    for index, length in enumerate(pieces):
        ids += [IMAGE_TOKEN] if index else []
        ids += rng.integers(0, vocab - 1, length).tolist()
    return ids


def tinyllava(text: dict[str, Any], vision: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """A config.json in the published form."""
    return {
        "architectures": ["TinyLlavaForConditionalGeneration"],
        "model_type": "tinyllava",
        "llm_model_name_or_path": "microsoft/phi-2",
        "hidden_size": text["hidden_size"],
        "vocab_size": text["vocab_size"],
        "image_token_index": IMAGE_TOKEN,
        "pad_token_id": text["vocab_size"] - 1,
        "text_config": {"model_type": "phi", "eos_token_id": text["vocab_size"] - 1, **text},
        "vision_config": {"model_type": "siglip_vision_model", **vision},
        **rest,
    }


# Published layout, fp16, every tensor of the tower present. Heads 3; head dims 12 and 20 (8 rotated); five
# rows of pixels too many for the patches; more positions than max_position_embeddings.
SQUARE_PATCH = Spec(
    name="square_patch", seed=30, matrices="f16", vectors="f16",
    config=tinyllava(
        {"vocab_size": 150, "hidden_size": 60, "intermediate_size": 70, "num_hidden_layers": 2,
         "num_attention_heads": 3, "num_key_value_heads": 3, "hidden_act": "gelu_new",
         "max_position_embeddings": 24, "layer_norm_eps": 1e-5, "rope_theta": 10000.0,
         "partial_rotary_factor": 0.4, "torch_dtype": "float16"},
        {"hidden_act": "gelu_pytorch_tanh", "hidden_size": 36, "image_size": 41, "intermediate_size": 50,
         "layer_norm_eps": 1e-6, "num_attention_heads": 3, "num_hidden_layers": 3, "patch_size": 9},
        connector_type="mlp2x_gelu", vision_feature_layer=-2, vision_feature_select_strategy="patch",
        image_aspect_ratio="square", tokenizer_model_max_length=128, torch_dtype="float16"),
    ids=ids_with_images(11, 150, [7, 6]), images=[(37, 53)],
)  # fmt: skip

# Published layout, bf16, sharded, the tower's unused parts missing. Two padded pictures, all patches kept,
# a feature layer counted from the front, one head of 72; grouped queries, head dim 12 of which int(4.8)
# are rotated, another theta and epsilon; a three-layer connector.
TWO_IMAGES = Spec(
    name="two_images", seed=72, matrices="bf16", vectors="bf16", shards=3, unused_vision=False,
    config=tinyllava(
        {"vocab_size": 131, "hidden_size": 72, "intermediate_size": 54, "num_hidden_layers": 2,
         "num_attention_heads": 6, "num_key_value_heads": 2, "layer_norm_eps": 1e-3, "rope_theta": 500.0,
         "partial_rotary_factor": 0.4, "torch_dtype": "bfloat16"},
        {"hidden_size": 72, "image_size": 36, "intermediate_size": 50, "layer_norm_eps": 1e-4,
         "num_attention_heads": 1, "num_hidden_layers": 3, "patch_size": 8},
        connector_type="mlp3x_gelu", vision_feature_layer=2, vision_feature_select_strategy="cls_patch",
        image_aspect_ratio="pad", tokenizer_model_max_length=96, torch_dtype="bfloat16"),
    ids=ids_with_images(12, 131, [5, 1, 8]), images=[(29, 48), (41, 16)],
)  # fmt: skip

# The older LLaVA names and flat config, fp32, no lm_head bias. (Published ones leave out vision_config and
# name a so400m tower instead; this tower is smaller, so it has one.)
OLDER_NAMES = Spec(
    name="older_names", seed=58, matrices="f32", vectors="f32", unused_vision=False,
    config={
        "architectures": ["TinyLlavaPhiForCausalLM"], "model_type": "tiny_llava_phi",
        "vocab_size": 97, "hidden_size": 40, "intermediate_size": 60, "num_hidden_layers": 2,
        "num_attention_heads": 5, "num_key_value_heads": 5, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5,
        "max_position_embeddings": 2048, "partial_rotary_factor": 0.5, "rope_scaling": None,
        "rope_theta": 10000.0, "qk_layernorm": False, "tie_word_embeddings": False, "eos_token_id": 96,
        "mm_vision_tower": "bczhou/TinyLLaVA-3.1B-SigLIP", "mm_hidden_size": 30,
        "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False, "mm_use_im_patch_token": False, "image_aspect_ratio": "pad",
        "pad_token": "<|endoftext|>", "tokenizer_padding_side": "right", "tokenizer_model_max_length": 64,
        "torch_dtype": "float32", "use_cache": True,
        "vision_config": {
            "hidden_act": "gelu_pytorch_tanh", "hidden_size": 30, "image_size": 30, "intermediate_size": 44,
            "layer_norm_eps": 1e-6, "model_type": "siglip_vision_model", "num_attention_heads": 5,
            "num_hidden_layers": 2, "patch_size": 7},
    },
    ids=ids_with_images(13, 97, [6, 5]), images=[(23, 31)],
)  # fmt: skip

# A plain microsoft/phi-2 directory: text only, fp16. Rotary share (0.5 of 12), theta, epsilon and activation
# are PhiConfig's defaults; key and value heads are null.
TEXT_ONLY = Spec(
    name="text_only", seed=15, matrices="f16", vectors="f16",
    config={
        "architectures": ["PhiForCausalLM"], "model_type": "phi", "vocab_size": 161, "hidden_size": 60,
        "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": None,
        "bos_token_id": 160, "eos_token_id": 160, "tie_word_embeddings": False, "torch_dtype": "float16",
    },
    ids=ids_with_images(14, 161, [19]),
)  # fmt: skip

# All that can be left out is: 12 blocks of 12 heads, patches of 16, 32 text heads (of 2, all rotated),
# feature layer, strategy, aspect ratio and length. Matrices bf16, norms and biases fp32; a linear connector
# and a single decoder layer.
DEFAULTS = Spec(
    name="defaults", seed=24, matrices="bf16", vectors="f32", unused_vision=False,
    config=tinyllava(
        {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 52, "num_hidden_layers": 1,
         "partial_rotary_factor": 1.0},
        {"hidden_size": 24, "image_size": 50, "intermediate_size": 20},
        connector_type="linear"),
    ids=ids_with_images(15, 96, [4, 7]), images=[(19, 61)],
)  # fmt: skip

SPECS = [SQUARE_PATCH, TWO_IMAGES, OLDER_NAMES, TEXT_ONLY, DEFAULTS]


# --- weights -----------------------------------------------------------------------------------


def parts(spec: Spec) -> tuple[nn.Module, nn.Module | None, nn.Module | None]:
    """Decoder, tower and connector of a spec's shapes; their values are of no account."""
    config = spec.config
    text = PhiConfig(**config.get("text_config", {k: v for k, v in config.items() if k != "vision_config"}))
    if "vision_config" not in config:
        return PhiForCausalLM(text), None, None
    vision = SiglipVisionConfig(**config["vision_config"])
    kind = config.get("connector_type") or config["mm_projector_type"]
    connector = make_connector(kind, vision.hidden_size, text.hidden_size)
    return PhiForCausalLM(text), SiglipVisionModel(vision), connector


def shapes(spec: Spec) -> dict[str, torch.Size]:
    """Every tensor's shape by its published name."""
    text, tower, connector = parts(spec)
    found = {f"language_model.{name}": value.shape for name, value in text.state_dict().items()}
    if tower is None or connector is None:
        return found
    feature_layer = spec.config.get("vision_feature_layer", spec.config.get("mm_vision_select_layer", -2))
    unused = unused_tower(tower.config, feature_layer)
    for name, value in tower.state_dict().items():
        if spec.unused_vision or not name.startswith(unused):
            found[f"vision_tower._vision_tower.{name}"] = value.shape
    found |= {f"connector._connector.{name}": value.shape for name, value in connector.state_dict().items()}
    return found


def spread(name: str, shape: torch.Size) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values.

    What enters the first norms is small, so that their epsilon shows; attention is far from uniform, and
    activations leave the straight parts of GELU.
    """
    fan_in = math.prod(shape[1:])
    if "norm" in name:
        return (1.0, 0.3) if name.endswith("weight") else (0.0, 0.2)
    if name.endswith("bias"):
        return 0.0, 0.02 if "patch_embedding" in name else 0.2
    if "embed_tokens" in name or "position_embedding" in name:
        return 0.0, 0.03
    if "patch_embedding" in name:
        return 0.0, 0.05 / math.sqrt(fan_in)
    if "q_proj" in name or "k_proj" in name:
        return 0.0, 1.4 / math.sqrt(fan_in)
    if "lm_head" in name:
        return 0.0, 2.0 / math.sqrt(fan_in)
    return 0.0, 1.2 / math.sqrt(fan_in)


def make_weights(spec: Spec) -> dict[str, Tensor]:
    """Random values for every tensor; each has a generator of its own, seeded by its name."""
    weights = {}
    for name, shape in shapes(spec).items():
        rng = np.random.Generator(np.random.PCG64([spec.seed, zlib.crc32(f"{spec.name} {name}".encode())]))
        mean, deviation = spread(name, shape)
        values = mean + deviation * rng.standard_normal(tuple(shape))
        vector = len(shape) == 1 or "probe" in name
        weights[name] = torch.from_numpy(values).to(DTYPES[spec.vectors if vector else spec.matrices])
    return weights


def as_published(spec: Spec, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names this spec's kind of directory uses."""
    kind = spec.config["model_type"]
    if kind == "tinyllava":
        return weights
    if kind == "phi":
        return {name.removeprefix("language_model."): value for name, value in weights.items()}
    renamed = {}
    for name, value in weights.items():
        if name == "language_model.lm_head.bias":
            continue
        older = next((o + name.removeprefix(p) for o, p in OLDER_PREFIXES if name.startswith(p)), name)
        renamed[older] = value
    return renamed


# --- files -------------------------------------------------------------------------------------


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_weights(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, where = list(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        save_file({name: tensors[name] for name in mine}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(mine, file)
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_model(spec: Spec, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    vocab = spec.config["vocab_size"]
    end = {key: vocab - 1 for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "config.json", {**spec.config, "transformers_version": "4.40.1"})
    write_json(
        folder / "generation_config.json", {"_from_model_config": True, **end, "transformers_version": "4.40.1"}
    )
    write_weights(folder, as_published(spec, make_weights(spec)), spec.shards)


def picture(seed: int, size: tuple[int, int]) -> Tensor:
    """A [h, w, 3] uint8 picture: blocks of colour under grain, with hard edges and full range."""
    rng = np.random.Generator(np.random.PCG64(seed))
    height, width = size
    blocks = rng.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3))
    smooth = blocks.repeat(7, axis=0).repeat(7, axis=1)[:height, :width]
    grain = rng.integers(-40, 41, (height, width, 3))
    return torch.from_numpy(np.clip(smooth + grain, 0, 255).astype(np.uint8))


# --- goldens -----------------------------------------------------------------------------------


def run(model: Reference, spec: Spec, pictures: list[Tensor], pixels: list[Tensor]) -> Stages:
    """Every stage from the pixels to the greedy tokens."""
    stages: Stages = {}
    for index, picture_ in enumerate(pictures):
        stages[f"image.{index}"] = picture_
        stages[f"pixels.{index}"] = pixels[index]
    rows = [model.image_rows(value, index, stages) for index, value in enumerate(pixels)]
    stages["input_ids"] = torch.tensor(spec.ids, dtype=torch.int32)
    stages["fused"] = model.fuse(spec.ids, rows)
    model.logits(stages["fused"], stages)
    tokens, stages["step_logits"] = model.greedy(stages["fused"], STEPS)
    stages["greedy"] = torch.tensor(tokens, dtype=torch.int32)
    return stages


def worst_error(stages: Stages, exact: Stages) -> tuple[float, str]:
    """The largest difference of a stage, relative to its largest value, and the stage's name."""
    found = [
        (float((value - exact[name]).abs().max() / exact[name].abs().max()), name)
        for name, value in stages.items()
        if value.dtype == torch.float32
    ]
    return max(found)


def check(spec: Spec, model: Reference, stages: Stages, exact: Stages) -> None:
    """Refuses a golden on which two right implementations could disagree; prints what was found."""
    tokens = stages["greedy"].tolist()
    gap, distinct = top_gap(stages["step_logits"]), len(set(tokens))
    error, where = worst_error(stages, exact)
    again: Stages = {}
    after = model.language.model.embed_tokens(torch.tensor(tokens[:-1]))
    whole = model.logits(torch.cat([stages["fused"], after]), again)[-STEPS:]
    cached = float((whole - stages["step_logits"]).abs().max())
    print(
        f"{spec.name}: {len(stages['fused'])} rows, logits up to {float(stages['logits'].abs().max()):.1f}, "
        f"{distinct} different greedy tokens, least top-2 gap {gap:.4f}, "
        f"fp32 against fp64 {error:.1e} ({where}), decoding against one pass {cached:.1e}"
    )
    problems = []
    if gap < LEAST_GAP:
        problems.append("a greedy step is a near-tie")
    if distinct < LEAST_DISTINCT:
        problems.append("the greedy tokens repeat too much")
    if model.config.text.eos_token_id in tokens:
        problems.append("the end token is among the greedy ones")
    if error > MOST_ERROR or cached > 1e-4 or exact["greedy"].tolist() != tokens:
        problems.append("fp32 is not exact enough")
    if problems:
        raise SystemExit(f"{spec.name}: {', '.join(problems)}; choose another seed")


def make(spec: Spec, out: Path) -> None:
    folder = out / spec.name
    write_model(spec, folder)
    model = Reference(folder)
    pictures = [picture(100 * spec.seed + index, size) for index, size in enumerate(spec.images)]
    pixels = [model.pixels(Image.fromarray(value.numpy())) for value in pictures]
    stages = run(model, spec, pictures, pixels)
    torch.set_default_dtype(torch.float64)
    exact = run(Reference(folder).double(), spec, pictures, [value.double() for value in pixels])
    torch.set_default_dtype(torch.float32)
    check(spec, model, stages, exact)
    stages = {name: value.contiguous() for name, value in stages.items()}
    save_file(stages, folder / "golden.safetensors", metadata=made_with())


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes tests/golden/models.")
    parser.add_argument("--only", help="make one model")
    parser.add_argument("--out", type=Path, default=GOLDEN)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for spec in SPECS:
        if args.only in (None, spec.name):
            make(spec, args.out)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{size / 1e6:.2f} MB in {args.out.name}/")


if __name__ == "__main__":
    main()
