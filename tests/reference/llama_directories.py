"""The Hugging Face directories of tests/golden/stories and what transformers says of them, for make_story_goldens.py."""

from __future__ import annotations

import json
import math
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizerFast

from reference_model import made_with, top_gap

BOS = 1
PROMPT = 40  # ids in the prompt
STEPS = 24
ROWS = [0, 17, 39]  # of the prompt, whose hidden states and logits are kept
LEAST_GAP, LEAST_DISTINCT = 1e-3, 8  # as in make_model_goldens.py
MOST_ERROR = 2e-5
SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True)
class Directory:
    name: str
    seed: int
    tokenizer: str  # the file that it has
    config: dict[str, Any]


COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "num_attention_heads": 4, "num_hidden_layers": 2,
    "max_position_embeddings": 256, "torch_dtype": "float16", "transformers_version": "4.40.1",
}  # fmt: skip
DIRECTORIES = [
    # Grouped queries, a classifier of its own, another theta, a small epsilon.
    Directory("hf_grouped", 1, "tokenizer.model", {
        **COMMON, "hidden_size": 24, "intermediate_size": 48, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0, "rope_scaling": None, "tie_word_embeddings": False,
    }),
    # Tied; key and value heads and theta are left to the defaults.
    Directory("hf_tied", 2, "tokenizer.json", {
        **COMMON, "hidden_size": 16, "intermediate_size": 40, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    }),
]  # fmt: skip


# --- files ---------------------------------------------------------------------------------------------------------


def normal(seed: int, name: str, shape: torch.Size, mean: float, deviation: float) -> Tensor:
    """Random values from a generator of the tensor's own, seeded by its name."""
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    return torch.from_numpy(mean + deviation * rng.standard_normal(tuple(shape))).float()


def deviation(name: str, fan_in: int, tied: bool) -> float:
    """What enters the first norm is small, so that its epsilon shows, unless it is the classifier too."""
    if "embed_tokens" in name:
        return 1.5 / math.sqrt(fan_in) if tied else 0.01
    gain = {"q_proj": 2.0, "k_proj": 2.0, "v_proj": 2.0, "lm_head": 1.5}
    return gain.get(name.split(".")[-2], 2.5) / math.sqrt(fan_in)


def write_directory(directory: Directory, vocab: int, folder: Path) -> None:
    folder.mkdir()
    config = {**directory.config, "vocab_size": vocab}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tied = config["tie_word_embeddings"]
    weights = {}
    for name, value in LlamaForCausalLM(LlamaConfig(**config)).state_dict().items():
        if value.ndim == 1:
            weights[name] = normal(directory.seed, name, value.shape, 1.0, 0.2).half()
        elif not (tied and name == "lm_head.weight"):
            spread = deviation(name, value.shape[1], tied)
            weights[name] = normal(directory.seed, name, value.shape, 0.0, spread).half()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer(spm: sentencepiece.SentencePieceProcessor, path: Path) -> None:
    """tokenizer.model, or the tokenizer.json that transformers makes of it."""
    model = path.with_name("tokenizer.model")
    model.write_bytes(spm.serialized_model_proto())
    if path != model:
        LlamaTokenizerFast(vocab_file=str(model), legacy=True).backend_tokenizer.save(str(path), pretty=False)
        model.unlink()


# --- goldens -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def stages(model: LlamaForCausalLM, prompt: list[int]) -> dict[str, Tensor]:
    """The kept rows of every layer's output, of the last norm's and of the logits."""
    blocks: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, outputs: blocks.append(outputs[0])) for layer in model.model.layers
    ]
    out = model(torch.tensor([prompt]), output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    kept = {f"decoder.block.{index}": value[0, ROWS] for index, value in enumerate(blocks)}
    return kept | {"decoder.final": out.hidden_states[-1][0, ROWS], "logits": out.logits[0, ROWS]}


@torch.no_grad()
def greedy(model: LlamaForCausalLM, prompt: list[int]) -> tuple[list[int], Tensor]:
    """The tokens, the end token being nothing special, and the logits that each was taken from."""
    ids, steps = list(prompt), []
    for _ in range(STEPS):
        steps.append(model(torch.tensor([ids])).logits[0, -1])
        ids.append(int(steps[-1].argmax()))
    return ids[len(prompt) :], torch.stack(steps)


@torch.no_grad()
def nats(model: LlamaForCausalLM, ids: list[int], context: int) -> float:
    """Of the tokens after the first, each scored once.

    The first window covers the first `context` ids; each later one starts context / 2 further on, and only tokens
    not yet scored count.
    """
    total, begin, scored = 0.0, 0, 1
    while scored < len(ids):
        window = ids[begin : begin + context]
        logits = model(torch.tensor([window])).logits[0]
        first = scored - begin
        targets = torch.tensor(window[first:])
        total += float(F.cross_entropy(logits[first - 1 : len(window) - 1], targets, reduction="sum"))
        scored = begin + len(window)
        begin += context // 2
    return total


def perplexity(model: LlamaForCausalLM, encoded: list[list[int]], size: int, context: int) -> dict[str, Any]:
    total = sum(nats(model, ids, context) for ids in encoded)
    tokens = sum(len(ids) - 1 for ids in encoded)
    return {
        "context": context, "perplexity": math.exp(total / tokens), "nll_per_token": total / tokens,
        "nll_per_byte": total / size, "tokens": tokens, "bytes": size,
    }  # fmt: skip


def check(name: str, model: LlamaForCausalLM, exact: LlamaForCausalLM, prompt: list[int]) -> dict[str, Tensor]:
    """The golden tensors; refuses those on which two right implementations could disagree."""
    found, sure = stages(model, prompt), stages(exact, prompt)
    # The norms and the softmax of transformers stay in fp32.
    error = max(float((found[key] - sure[key]).abs().max() / sure[key].abs().max()) for key in found)
    tokens, logits = greedy(model, prompt)
    gap, distinct = top_gap(logits), len(set(tokens))
    print(f"{name}: {distinct} different greedy tokens, least gap {gap:.2g}, fp32 against fp64 {error:.1e}")
    if gap < LEAST_GAP or distinct < LEAST_DISTINCT or error > MOST_ERROR or tokens != greedy(exact, prompt)[0]:
        raise SystemExit(f"{name}: choose another seed")
    found |= {"input_ids": torch.tensor(prompt), "rows": torch.tensor(ROWS), "greedy": torch.tensor(tokens)}
    return {key: value.contiguous() if value.is_floating_point() else value.int() for key, value in found.items()}


def make_directories(out: Path, spm: sentencepiece.SentencePieceProcessor, documents: list[str]) -> None:
    """Writes documents.txt, perplexity.json, and each directory with its golden.safetensors."""
    (out / "documents.txt").write_text(f"\n{SEPARATOR}\n".join(documents) + "\n", encoding="utf-8")
    encoded = [[BOS, *spm.encode(text)] for text in documents]
    size = sum(len(text.encode()) for text in documents)
    measured = {}
    for directory in DIRECTORIES:
        folder = out / directory.name
        shutil.rmtree(folder, ignore_errors=True)
        write_directory(directory, spm.get_piece_size(), folder)
        write_tokenizer(spm, folder / directory.tokenizer)
        model = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").eval()
        torch.set_default_dtype(torch.float64)
        exact = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float64, attn_implementation="eager").eval()
        torch.set_default_dtype(torch.float32)
        golden = check(directory.name, model, exact, encoded[2][:PROMPT])
        save_file(golden, folder / "golden.safetensors", metadata=made_with())
        contexts = (64, directory.config["max_position_embeddings"])
        measured[directory.name] = [perplexity(exact, encoded, size, context) for context in contexts]
        again = [perplexity(model, encoded, size, context) for context in contexts]
        for one, other in zip(measured[directory.name], again):
            print(f"  {one}, in fp32 {other['perplexity']}")
            assert abs(one["nll_per_token"] - other["nll_per_token"]) < 1e-5
    content = {"tokens_of_documents": [len(ids) - 1 for ids in encoded], **measured}
    (out / "perplexity.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
