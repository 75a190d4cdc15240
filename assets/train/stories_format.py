"""Writes llama2.c's files: the tokenizer, and a model with Q8_0 (version 2) or fp32 (version 0) weights."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

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
    """Every matrix in the order of the files: the embeddings, then each kind over all layers."""
    return [model.tok_embeddings.weight, *(getattr(layer, name).weight for name in MATRICES for layer in model.layers)]


def write_q8(model: Llama, path: Path, group_size: int) -> None:
    with path.open("wb") as file:
        head = struct.pack("<Ii", MAGIC, 2) + header(model.config, model.config.vocab_size) + struct.pack("<Bi", 1, group_size)
        file.write(head.ljust(HEADER_BYTES, b"\0"))
        for norm in [*(b.attention_norm for b in model.layers), *(b.ffn_norm for b in model.layers), model.norm]:
            write_floats(file, norm.weight)
        for matrix in matrices(model):
            values, scales = quantize(matrix, group_size)
            file.write(values.numpy().tobytes())
            write_floats(file, scales)


def write_fp32(model: Llama, path: Path) -> None:
    embeddings, *rest = matrices(model)
    layers = model.config.n_layers
    with path.open("wb") as file:
        file.write(header(model.config, model.config.vocab_size))  # a positive size: the classifier is the embedding
        write_floats(file, embeddings)
        for b in model.layers:
            write_floats(file, b.attention_norm.weight)
        for matrix in rest[: 4 * layers]:
            write_floats(file, matrix)
        for b in model.layers:
            write_floats(file, b.ffn_norm.weight)
        for matrix in rest[4 * layers :]:
            write_floats(file, matrix)
        write_floats(file, model.norm.weight)
        write_floats(file, torch.zeros(model.config.seq_len * model.config.head_size))  # the two legacy rotary tables


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
