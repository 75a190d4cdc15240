"""The Llama2 architecture as llama2.c trains and runs it: RMSNorm, interleaved rotary pairs, SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class LlamaConfig:
    """The seven integers of a llama2.c header, under its names."""

    dim: int = 256
    hidden_dim: int = 768
    n_layers: int = 6
    n_heads: int = 8
    n_kv_heads: int = 4
    vocab_size: int = 2048
    seq_len: int = 512

    @property
    def head_size(self) -> int:
        return self.dim // self.n_heads


class RmsNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, T, heads, head_size]; the pairs are neighbours, cos and sin are [T, 1, head_size / 2]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Block(nn.Module):
    def __init__(self, config: LlamaConfig, dropout: float) -> None:
        super().__init__()
        self.config, self.dropout = config, dropout
        kv_dim = config.n_kv_heads * config.head_size
        self.attention_norm, self.ffn_norm = RmsNorm(config.dim), RmsNorm(config.dim)
        self.wq = nn.Linear(config.dim, config.dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        c = self.config
        q = rotate(self.wq(x).unflatten(-1, (c.n_heads, -1)), cos, sin).transpose(1, 2)
        k = rotate(self.wk(x).unflatten(-1, (c.n_kv_heads, -1)), cos, sin).transpose(1, 2)
        v = self.wv(x).unflatten(-1, (c.n_kv_heads, -1)).transpose(1, 2).float()
        shared = c.n_heads // c.n_kv_heads
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        with torch.autocast("cpu", enabled=False):  # in fp32: on a CPU also the faster way
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(out.transpose(1, 2).flatten(-2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + F.dropout(self.attend(self.attention_norm(x), cos, sin), self.dropout, self.training)
        n = self.ffn_norm(x)
        return x + F.dropout(self.w2(F.silu(self.w1(n)) * self.w3(n)), self.dropout, self.training)


class Llama(nn.Module):
    """`tied`: the embeddings are the classifier too; otherwise it is a matrix of its own, `output`."""

    def __init__(self, config: LlamaConfig, dropout: float = 0.0, tied: bool = True) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.output = None if tied else nn.Linear(config.dim, config.vocab_size, bias=False)
        self.layers = nn.ModuleList(Block(config, dropout) for _ in range(config.n_layers))
        self.norm = RmsNorm(config.dim)
        frequency = 10000.0 ** (-torch.arange(0, config.head_size, 2).float() / config.head_size)
        angles = torch.outer(torch.arange(config.seq_len).float(), frequency)[:, None]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                residual = name.endswith(("wo.weight", "w2.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * config.n_layers) ** 0.5 if residual else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] → logits [B, T, vocab_size]."""
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x = self.tok_embeddings(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        classifier = self.tok_embeddings if self.output is None else self.output
        return F.linear(self.norm(x), classifier.weight)
