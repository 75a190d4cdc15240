"""Writes llama2.c's files: the tokenizer, and a model with fp32 (versions 0 and 1) or Q8_0 (version 2) weights."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Callable

import sentencepiece
import torch
from torch import Tensor

from stories_model import Llama, LlamaConfig

MAGIC = 0x616B3432
HEADER_BYTES = 256
MATRICES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")


def header(config: LlamaConfig, vocab_size: int) -> bytes:
    return struct.pack(
        "7i", config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads, vocab_size, config.seq_len
    )


def write_floats(file: BinaryIO, tensor: Tensor) -> None:
    file.write(tensor.detach().float().contiguous().numpy().tobytes())


def quantize(tensor: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """int8 values and one fp32 scale a group, symmetric: the largest of a group becomes ±127."""
    groups = tensor.detach().float().reshape(-1, group_size)
    scales = groups.abs().amax(1) / 127
    return torch.round(groups / scales.clamp_min(1e-30)[:, None]).to(torch.int8), scales


def matrices(model: Llama) -> list[Tensor]:
    """Every matrix of the layers in the order of the files: each kind over all layers."""
    return [getattr(layer, name).weight for name in MATRICES for layer in model.layers]


def norms(model: Llama) -> list[Tensor]:
    return [layer.attention_norm.weight for layer in model.layers] + [layer.ffn_norm.weight for layer in model.layers]


def write_versioned(model: Llama, path: Path, version: int, group_size: int | None, write: Callable) -> None:
    """Versions 1 and 2 differ in how write(file, matrix) stores a matrix, and in the header's group size."""
    tied = model.output is None
    head = struct.pack("<Ii", MAGIC, version) + header(model.config, model.config.vocab_size) + struct.pack("<B", tied)
    if group_size is not None:
        head += struct.pack("<i", group_size)
    with path.open("wb") as file:
        file.write(head.ljust(HEADER_BYTES, b"\0"))
        for norm in [*norms(model), model.norm.weight]:
            write_floats(file, norm)
        for matrix in [model.tok_embeddings.weight, *matrices(model), *([] if tied else [model.output.weight])]:
            write(file, matrix)


def write_q8(model: Llama, path: Path, group_size: int) -> None:
    """Version 2: every matrix in Q8_0."""

    def write(file: BinaryIO, matrix: Tensor) -> None:
        values, scales = quantize(matrix, group_size)
        file.write(values.numpy().tobytes())
        write_floats(file, scales)

    write_versioned(model, path, 2, group_size, write)


def write_fp32_v1(model: Llama, path: Path) -> None:
    """Version 1: fp32 behind a header like version 2's."""
    write_versioned(model, path, 1, None, write_floats)


def write_fp32(model: Llama, path: Path) -> None:
    """Version 0: fp32; a negative vocabulary size says that the classifier is a matrix of its own."""
    layers, vocab = model.config.n_layers, model.config.vocab_size
    per_layer, all_norms = matrices(model), norms(model)
    with path.open("wb") as file:
        file.write(header(model.config, vocab if model.output is None else -vocab))
        attention = [*all_norms[:layers], *per_layer[: 4 * layers]]
        feed_forward = [*all_norms[layers:], *per_layer[4 * layers :]]
        for tensor in [model.tok_embeddings.weight, *attention, *feed_forward, model.norm.weight]:
            write_floats(file, tensor)
        write_floats(file, model.cos)  # two tables that nothing reads any more
        write_floats(file, model.sin)
        if model.output is not None:
            write_floats(file, model.output.weight)


def write_tokenizer(spm: sentencepiece.SentencePieceProcessor, path: Path) -> None:
    """tokenizer.bin: the longest piece's bytes, then score, length and bytes of every piece."""
    pieces = []
    for i in range(spm.get_piece_size()):
        piece = spm.id_to_piece(i).replace("▁", " ")
        if i in (spm.bos_id(), spm.eos_id()):
            piece = f"\n{piece}\n"
        pieces.append((spm.get_score(i), piece.encode()))
    with path.open("wb") as file:
        file.write(struct.pack("<i", max(len(p) for _, p in pieces)))
        for score, piece in pieces:
            file.write(struct.pack("<fi", score, len(piece)) + piece)
