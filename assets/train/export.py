"""Writes and reads the model in the published TinyLLaVA layout (fp16 safetensors, Hugging Face names)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import TextConfig, TinyLlava, VisionConfig
from scenes import COLOUR_NAMES, KINDS

# Shown to whoever asks this model something.
NOTE = (
    f"The demo model knows drawn scenes only: 1 to 4 of {', '.join(KINDS[:-1])} and {KINDS[-1]}, "
    f"in {', '.join(COLOUR_NAMES[:-1])} or {COLOUR_NAMES[-1]}. Photographs need a larger model (-m)."
)

VISION = "vision_tower._vision_tower.vision_model."


def published_name(name: str) -> str:
    """Our parameter's name → its name in the checkpoint."""
    if name.startswith("vision_tower."):
        rest = name.removeprefix("vision_tower.")
        return VISION + (f"encoder.{rest}" if rest.startswith("layers.") else f"embeddings.{rest}")
    if name.startswith("connector."):
        return "connector._" + name
    if name.startswith("language_model.lm_head."):
        return name
    return name.replace("language_model.", "language_model.model.", 1)


def to_published(model: TinyLlava) -> dict[str, Tensor]:
    """The checkpoint's tensors, with q, k and v apart again."""
    tensors: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        name, weight = published_name(name), weight.detach()
        if "qkv_proj" in name:
            for letter, part in zip("qkv", weight.chunk(3)):
                tensors[name.replace("qkv_proj", f"{letter}_proj")] = part.contiguous()
        else:
            tensors[name] = weight.contiguous()
    return tensors


def configs(vision: VisionConfig, text: TextConfig, end: int) -> tuple[dict[str, object], dict[str, object]]:
    """config.json and generation_config.json."""
    config: dict[str, object] = {
        "architectures": ["TinyLlavaForConditionalGeneration"],
        "connector_type": "mlp2x_gelu",
        "hidden_size": text.hidden_size,
        "ignore_index": -100,
        "image_aspect_ratio": "square",
        "image_token_index": -200,
        "llm_model_name_or_path": "",
        "model_type": "tinyllava",
        "ocelli_note": NOTE,
        "num_queries": 128,
        "num_resampler_layers": 3,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token": "<|endoftext|>",
        "pad_token_id": end,
        "resampler_hidden_size": text.hidden_size,
        "text_config": {
            "architectures": ["PhiForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": end,
            "embd_pdrop": 0.0,
            "eos_token_id": end,
            "hidden_act": "gelu_new",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "layer_norm_eps": text.layer_norm_eps,
            "max_position_embeddings": text.max_position_embeddings,
            "model_type": "phi",
            "num_attention_heads": text.num_attention_heads,
            "num_hidden_layers": text.num_hidden_layers,
            "num_key_value_heads": text.num_attention_heads,
            "pad_token_id": end,
            "partial_rotary_factor": text.partial_rotary_factor,
            "qk_layernorm": False,
            "resid_pdrop": 0.0,
            "rope_scaling": None,
            "rope_theta": text.rope_theta,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "vocab_size": text.vocab_size,
        },
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 1024,
        "tokenizer_name_or_path": "",
        "tokenizer_padding_side": "right",
        "tokenizer_use_fast": False,
        "torch_dtype": "float16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "vision_config": {
            "attention_dropout": 0.0,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": vision.hidden_size,
            "image_size": vision.image_size,
            "intermediate_size": vision.intermediate_size,
            "layer_norm_eps": vision.layer_norm_eps,
            "model_type": "siglip_vision_model",
            "num_attention_heads": vision.num_attention_heads,
            "num_channels": 3,
            "num_hidden_layers": vision.num_hidden_layers,
            "patch_size": vision.patch_size,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "patch",
        "vision_hidden_size": vision.hidden_size,
        "vision_model_name_or_path": "",
        "vocab_size": text.vocab_size,
    }
    generation: dict[str, object] = {
        "_from_model_config": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "transformers_version": "4.40.1",
    }
    return config, generation


def write(model: TinyLlava, end: int, folder: Path) -> None:
    """config.json, generation_config.json and model.safetensors, each put in place whole."""
    config, generation = configs(model.vision_config, model.text_config, end)
    for name, value in [("config.json", config), ("generation_config.json", generation)]:
        (folder / f"{name}.part").write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        os.replace(folder / f"{name}.part", folder / name)
    tensors = {name: weight.half() for name, weight in to_published(model).items()}
    save_file(tensors, folder / "model.safetensors.part", metadata={"format": "pt"})
    os.chmod(folder / "model.safetensors.part", 0o644)
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")


def read(folder: Path) -> TinyLlava:
    """The model in fp32, as its fp16 file says."""
    model = TinyLlava(VisionConfig(), TextConfig())
    tensors = load_file(folder / "model.safetensors")
    for name, weight in model.named_parameters():
        name = published_name(name)
        if "qkv_proj" in name:
            value = torch.cat([tensors.pop(name.replace("qkv_proj", f"{letter}_proj")) for letter in "qkv"])
        else:
            value = tensors.pop(name)
        weight.data.copy_(value)
    assert not tensors, f"tensors that belong nowhere: {list(tensors)}"
    return model.eval()
