"""A small TinyLLaVA in plain PyTorch: SigLIP tower, mlp2x_gelu connector, Phi decoder.

Module names follow the published checkpoints, so a state dict is nearly an export. Two things differ: q, k and v
are one matrix while training (`qkv_proj`), and the tower holds only the blocks that are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VisionConfig:
    image_size: int = 96
    patch_size: int = 12
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 6  # as the config says; the last one is never run (vision_feature_layer −2)
    num_attention_heads: int = 6
    layer_norm_eps: float = 1e-6

    @property
    def used_layers(self) -> int:
        return self.num_hidden_layers - 1

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class TextConfig:
    vocab_size: int = 640
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    partial_rotary_factor: float = 0.5
    rope_theta: float = 10000.0
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 1024


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[B, T, 3·H] → three of [B, heads, T, H / heads]."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    return q, k, v


def join_heads(x: Tensor) -> Tensor:
    """[B, heads, T, d] → [B, T, heads·d]."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """The projections of an attention; out is called `out_proj` by SigLIP and `dense` by Phi."""

    def __init__(self, hidden: int, heads: int, out: str) -> None:
        super().__init__()
        self.heads, self.out = heads, out
        self.qkv_proj = nn.Linear(hidden, 3 * hidden)
        self.add_module(out, nn.Linear(hidden, hidden))

    def project(self, attended: Tensor) -> Tensor:
        return getattr(self, self.out)(join_heads(attended))


class Mlp(nn.Module):
    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, intermediate)
        self.fc2 = nn.Linear(intermediate, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionBlock(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Attention(config.hidden_size, config.num_attention_heads, "out_proj")
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = Mlp(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.self_attn.qkv_proj(self.layer_norm1(x)), self.self_attn.heads)
        x = x + self.self_attn.project(attend(q, k, v))
        return x + self.mlp(self.layer_norm2(x))


def sines(patches: int, width: int) -> Tensor:
    """A start for the position embedding, [patches, width]: waves along x and along y, of many lengths.

    Attention to a neighbour at a given offset is then easy to learn, and shapes span several patches.
    """
    side = int(patches**0.5)
    frequencies = torch.pi * 2.0 ** torch.linspace(-2, 3, width // 4) / side
    angles = torch.outer(torch.arange(side).float(), frequencies)
    along = torch.cat((angles.sin(), angles.cos()), 1)
    return 0.4 * torch.cat((along.repeat(side, 1), along.repeat_interleave(side, 0)), 1)


class VisionTower(nn.Module):
    """Pixels [B, 3, S, S] in [−1, 1] → patch features [B, patches, H]."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(config.patches, config.hidden_size)
        self.layers = nn.ModuleList(VisionBlock(config) for _ in range(config.used_layers))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding.weight
        for layer in self.layers:
            x = layer(x)
        return x


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attention in fp32, whatever the matrices around it are computed in: on a CPU that is also the faster way."""
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, is_causal=causal)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of the first dims of [B, heads, T, d]; cos and sin are [B or 1, 1, T, rotary / 2]."""
    n = cos.shape[-1]
    a, b, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)


KeysValues = tuple[Tensor, Tensor]


class PhiBlock(nn.Module):
    """One LayerNorm feeds both attention and MLP; both are added to the stream."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Attention(config.hidden_size, config.num_attention_heads, "dense")
        self.mlp = Mlp(config.hidden_size, config.intermediate_size)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        n = self.input_layernorm(x)
        q, k, v = split_heads(self.self_attn.qkv_proj(n), self.self_attn.heads)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k = torch.cat((past[0].expand(k.shape[0], -1, -1, -1).to(k.dtype), k), 2)
            v = torch.cat((past[1].expand(v.shape[0], -1, -1, -1).to(v.dtype), v), 2)
        attended = attend(q, k, v, mask, causal=mask is None)
        return x + self.self_attn.project(attended) + self.mlp(n), (k, v)


class Phi(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(PhiBlock(config) for _ in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        rotary = int(config.partial_rotary_factor * config.hidden_size / config.num_attention_heads)
        frequency = config.rope_theta ** (-torch.arange(0, rotary, 2).float() / rotary)
        angles = torch.outer(torch.arange(config.max_position_embeddings).float(), frequency)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor | None = None, past: list[KeysValues] | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """x [B, T, H], positions [B or 1, T], mask [B, 1, T, past + T] (none: causal, and then no past).

        Returns the stream before the final norm, and every layer's keys and values.
        """
        cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        cache: list[KeysValues] = []
        for i, layer in enumerate(self.layers):
            x, keys_values = layer(x, cos, sin, mask, past[i] if past else None)
            cache.append(keys_values)
        return x, cache

    def logits(self, x: Tensor) -> Tensor:
        return self.lm_head(self.final_layernorm(x))


class TinyLlava(nn.Module):
    def __init__(self, vision: VisionConfig, text: TextConfig) -> None:
        super().__init__()
        self.vision_config, self.text_config = vision, text
        self.vision_tower = VisionTower(vision)
        self.connector = nn.Sequential(
            nn.Linear(vision.hidden_size, text.hidden_size), nn.GELU(), nn.Linear(text.hidden_size, text.hidden_size)
        )
        self.language_model = Phi(text)
        self.apply(self._initialise)
        self.vision_tower.position_embedding.weight.data.copy_(sines(vision.patches, vision.hidden_size))
        for name, weight in self.named_parameters():  # keep the stream's variance from growing with depth
            if name.endswith(("out_proj.weight", "dense.weight", "fc2.weight")):
                weight.data.mul_(0.4)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)

    def image_rows(self, features: Tensor) -> Tensor:
        """Tower features [B, patches, H] → decoder rows [B, patches − 1, H]: "patch" drops the first."""
        return self.connector(features[:, 1:])


def to_pixels_tensor(images: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] → float [B, 3, S, S] in [−1, 1]."""
    return (images.permute(0, 3, 1, 2).double() * 0.00392156862745098).float().sub(0.5).div(0.5)
