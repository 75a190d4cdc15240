"""The reference: TinyLLaVA-Phi-SigLIP assembled from transformers' own classes, fp32 on the CPU.

Loads a directory in the published TinyLLaVA layout, one with the older LLaVA names, or a plain Phi
(text-only) one. The tower is SiglipVisionModel, the decoder PhiForCausalLM with eager attention, pixels
come from SiglipImageProcessor; prompt, fusion and greedy decoding are written out here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel
from transformers.cache_utils import DynamicCache
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

IMAGE_TOKEN = -200
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
Stages = dict[str, Tensor]

# Older names → published names; the first prefix that fits is replaced.
OLDER_PREFIXES = [
    ("model.vision_tower.vision_tower.", "vision_tower._vision_tower."),
    ("model.mm_projector.", "connector._connector."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
]


@dataclass(frozen=True)
class Config:
    """What a directory's config.json says, defaults filled in as the reference does."""

    text: PhiConfig
    vision: SiglipVisionConfig | None  # None: a text-only model
    connector: str = ""
    feature_layer: int = -2
    select_strategy: str = "patch"
    aspect_ratio: str = "square"
    max_length: int | None = None
    older_names: bool = False

    @property
    def vision_blocks(self) -> int:
        assert self.vision is not None
        return blocks_run(self.vision, self.feature_layer)


def blocks_run(vision: SiglipVisionConfig, feature_layer: int) -> int:
    """How many of the tower's blocks lead to a hidden state; number 0 is the embeddings, -1 the last block's."""
    return feature_layer if feature_layer >= 0 else vision.num_hidden_layers + 1 + feature_layer


def unused_tower(vision: SiglipVisionConfig, feature_layer: int) -> tuple[str, ...]:
    """What the names of the tower's tensors begin with that no recorded stage reads."""
    blocks = range(blocks_run(vision, feature_layer), vision.num_hidden_layers)
    unused = tuple(f"vision_model.encoder.layers.{i}." for i in blocks)
    return (*unused, "vision_model.post_layernorm.", "vision_model.head.")


def made_with() -> dict[str, str]:
    """What goes into a golden file's metadata: one entry, because the order of several is not fixed."""
    return {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"}


def read_config(folder: Path) -> Config:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if raw["model_type"] == "phi":
        return Config(text=PhiConfig(**raw, attn_implementation="eager"), vision=None)
    vision = SiglipVisionConfig(**raw["vision_config"])
    if raw["model_type"] == "tinyllava":
        return Config(
            text=PhiConfig(**raw["text_config"], attn_implementation="eager"),
            vision=vision,
            connector=raw["connector_type"],
            feature_layer=raw.get("vision_feature_layer", -2),
            select_strategy=raw.get("vision_feature_select_strategy", "patch"),
            aspect_ratio=raw.get("image_aspect_ratio", "square"),
            max_length=raw.get("tokenizer_model_max_length", 2048),
        )
    if raw["model_type"] == "tiny_llava_phi":
        text = {key: value for key, value in raw.items() if key != "vision_config"}
        return Config(
            text=PhiConfig(**text, attn_implementation="eager"),
            vision=vision,
            connector=raw["mm_projector_type"],
            feature_layer=raw["mm_vision_select_layer"],
            select_strategy=raw["mm_vision_select_feature"],
            aspect_ratio=raw["image_aspect_ratio"],
            max_length=raw["tokenizer_model_max_length"],
            older_names=True,
        )
    raise ValueError(f"{folder}: model type {raw['model_type']} is not known here")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a directory in fp32, by its published name."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, value in load_file(folder / file).items():
            for older, published in OLDER_PREFIXES:
                if name.startswith(older):
                    name = published + name.removeprefix(older)
                    break
            assert name not in tensors, f"{folder}: {name} appears twice"
            tensors[name] = value.float()
    return tensors


def fill(module: nn.Module, tensors: dict[str, Tensor], prefix: str, may_lack: tuple[str, ...] = ()) -> None:
    """Loads the tensors under `prefix`, takes them out of `tensors`, and refuses missing and surplus ones.

    A tensor whose name begins with one of `may_lack` may be missing: nothing that is recorded reads it.
    """
    mine = {name.removeprefix(prefix): name for name in list(tensors) if name.startswith(prefix)}
    found = module.load_state_dict({short: tensors.pop(name) for short, name in mine.items()}, strict=False)
    missing = [name for name in found.missing_keys if not name.startswith(may_lack)]
    if missing or found.unexpected_keys:
        raise ValueError(f"{prefix}: missing {missing}, surplus {found.unexpected_keys}")


def make_connector(kind: str, width: int, text_width: int) -> nn.Module:
    """`linear`, `identity` or `mlpNx_gelu`: N linear layers with an erf GELU between them."""
    if kind == "identity":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(width, text_width)
    depth = int(kind.removeprefix("mlp").removesuffix("x_gelu"))
    layers: list[nn.Module] = [nn.Linear(width, text_width)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(text_width, text_width)]
    return nn.Sequential(*layers)


class Reference(nn.Module):
    """One loaded model. Methods take and return unbatched tensors; `stages` collects what they pass through."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.config = read_config(folder)
        tensors = read_tensors(folder)
        text, vision = self.config.text, self.config.vision
        self.language = PhiForCausalLM(text)
        if self.config.older_names:  # the older code's lm_head has no bias
            tensors.setdefault("language_model.lm_head.bias", torch.zeros(text.vocab_size))
        fill(self.language, tensors, "language_model.")
        if vision is not None:
            self.tower = SiglipVisionModel(vision)
            fill(self.tower, tensors, "vision_tower._vision_tower.", unused_tower(vision, self.config.feature_layer))
            self.connector = make_connector(self.config.connector, vision.hidden_size, text.hidden_size)
            fill(self.connector, tensors, "connector._connector.")
            size = {"height": vision.image_size, "width": vision.image_size}
            self.processor = SiglipImageProcessor(size=size)
        if tensors:
            raise ValueError(f"{folder}: tensors that belong nowhere: {sorted(tensors)}")
        self.eval().requires_grad_(False)

    def pixels(self, picture: Image.Image) -> Tensor:
        """An RGB picture → [3, S, S]."""
        if self.config.aspect_ratio == "pad":
            picture = self._padded(picture)
        else:
            assert self.config.aspect_ratio == "square", self.config.aspect_ratio
        return self.processor(picture, return_tensors="pt")["pixel_values"][0]

    def _padded(self, picture: Image.Image) -> Image.Image:
        """The picture in the middle of a square of the mean colour; an odd pixel goes to the right or below."""
        side = max(picture.size)
        square = Image.new("RGB", (side, side), tuple(int(mean * 255) for mean in self.processor.image_mean))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return square

    def image_rows(self, pixels: Tensor, index: int, stages: Stages) -> Tensor:
        """[3, S, S] → the rows that stand for image `index` in the decoder's input."""
        states = self.tower(pixels[None], output_hidden_states=True).hidden_states
        stages[f"vision.embeddings.{index}"] = states[0][0]
        for i in range(self.config.vision_blocks):
            stages[f"vision.block.{i}.{index}"] = states[i + 1][0]
        rows = states[self.config.feature_layer][0]
        if self.config.select_strategy == "patch":
            rows = rows[1:]
        else:
            assert self.config.select_strategy == "cls_patch", self.config.select_strategy
        stages[f"connector.{index}"] = self.connector(rows)
        return stages[f"connector.{index}"]

    def fuse(self, ids: list[int], images: list[Tensor]) -> Tensor:
        """Ids, in which -200 stands for the next image's rows → [T, d]."""
        assert ids.count(IMAGE_TOKEN) == len(images)
        waiting = iter(images)
        pieces = [
            next(waiting) if i == IMAGE_TOKEN else self.language.model.embed_tokens(torch.tensor([i])) for i in ids
        ]
        fused = torch.cat(pieces)
        limit = self.config.max_length
        if limit is not None and len(fused) > limit:
            raise ValueError(f"{len(fused)} rows, and the model takes {limit}")
        return fused

    def logits(self, fused: Tensor, stages: Stages) -> Tensor:
        """[T, d] → [T, vocab], in one pass, recording every block's output."""
        hooks = [
            layer.register_forward_hook(lambda _, __, out, i=i: stages.update({f"decoder.block.{i}": out[0][0]}))
            for i, layer in enumerate(self.language.model.layers)
        ]
        stages["decoder.final"] = self.language.model(inputs_embeds=fused[None], use_cache=False)[0][0]
        for hook in hooks:
            hook.remove()
        stages["logits"] = self.language.lm_head(stages["decoder.final"])
        return stages["logits"]

    def greedy(self, fused: Tensor, count: int) -> tuple[list[int], Tensor]:
        """`count` greedy tokens, whatever they are, and the [count, vocab] logits each was taken from."""
        cache, tokens, steps, x = DynamicCache(), [], [], fused[None]
        while True:
            steps.append(self.language(inputs_embeds=x, past_key_values=cache, use_cache=True).logits[0, -1])
            tokens.append(int(steps[-1].argmax()))
            if len(tokens) == count:
                return tokens, torch.stack(steps)
            x = self.language.model.embed_tokens(torch.tensor([[tokens[-1]]]))


def top_gap(steps: Tensor) -> float:
    """The smallest distance between the best and the second logit of any step."""
    best = steps.topk(2, dim=-1).values
    return float((best[:, 0] - best[:, 1]).min())


def prompt(question: str, images: int = 1) -> str:
    """The first turn of a conversation; without an image there is no system text."""
    if images == 0:
        return f"USER: {question} ASSISTANT:"
    return f"{SYSTEM}USER: " + "<image>\n" * images + f"{question} ASSISTANT:"


def prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Each piece between two `<image>` by itself, -200 between them."""
    pieces = [tokenizer(piece).input_ids for piece in text.split("<image>")]
    ids = list(pieces[0])
    for piece in pieces[1:]:
        ids += [IMAGE_TOKEN, *piece]
    return ids
