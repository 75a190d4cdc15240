#!/usr/bin/env python3
"""Trains the demo model from nothing on two CPU cores and writes it to a folder in the published layout.

    train_demo.py --work DIR --out ../demo

DIR takes the training pictures (3.3 GB), checkpoints and a log of the loss. A run that was stopped goes on from its
last checkpoint when the same command is given again. See README.md for what to expect.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch._dynamo
import torch._inductor.config
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

import batches
import export
import pool
import scenes
import text
from model import PhiBlock, TextConfig, TinyLlava, VisionBlock, VisionConfig, to_pixels_tensor

TRAIN_SEED = 1
CHECK_SEED = 2  # a few hundred scenes looked at while training
CORPUS_SEED = 3


class PatchHeads(nn.Module):
    """Throw-away heads that read each patch's thing off the tower's output; they make it learn to see early."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.sizes = [len(scenes.KINDS) + 1, len(scenes.COLOUR_NAMES), 4, 4, 4, 4, 4, 4, 4, 2]
        self.out = nn.Linear(hidden, sum(self.sizes))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return self.out(self.norm(features.float())).split(self.sizes, -1)

    def loss(self, features: Tensor, labels: batches.PatchLabels) -> tuple[Tensor, float]:
        """The loss, and the part of the things' patches whose kind and colour are both right."""
        kind, colour, boxes, same_kind, same_colour, total, mention, row, rows, centre = self(features)

        def classify(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
            return F.cross_entropy(logits.flatten(0, 1), label.flatten(), weight)

        things = labels.kind > 0
        rarer = torch.tensor([0.1] + [1.0] * len(scenes.KINDS))  # five patches of six are background
        loss = 2 * classify(kind, labels.kind, rarer) + classify(colour, labels.colour)
        loss = loss + 10 * F.smooth_l1_loss(boxes[things], labels.boxes[things], beta=0.05)
        loss = loss + 2 * classify(centre, labels.centre, torch.tensor([0.2, 1.0]))
        loss = loss + classify(same_kind, labels.same_kind) + 0.5 * classify(same_colour, labels.same_colour)
        loss = loss + classify(total, labels.total) + 0.5 * classify(rows, labels.rows)
        loss = loss + classify(mention, labels.mention) + 0.5 * classify(row, labels.row)
        right = (kind.argmax(-1) == labels.kind) & (colour.argmax(-1) == labels.colour)
        return loss, right[things].float().mean().item()


@dataclass(frozen=True)
class Plan:
    """The schedule, in steps: first the tower alone, then everything; the rate rises, stays and falls."""

    vision_steps: int
    steps: int
    decay_steps: int
    rate: float
    warmup: int = 200

    def rate_at(self, step: int) -> float:
        since = step if step < self.vision_steps else step - self.vision_steps + 1
        rise = min(1.0, (since + 1) / self.warmup)
        fall = min(1.0, (self.steps - step) / self.decay_steps)
        return self.rate * rise * max(fall, 0.01)


def compile_blocks() -> None:
    """Lets TorchInductor fuse what lies between the matrices; it needs a C++ compiler and a minute or two."""
    torch._dynamo.config.cache_size_limit = 64
    torch._inductor.config.cpp.threads = 1
    for block in (VisionBlock, PhiBlock):
        block.forward = torch.compile(block.forward, dynamic=False)  # type: ignore[method-assign]


class Run:
    """One of the processes that train together: each takes its share of every batch, then gradients are averaged.

    Processes of one thread wait for one another once a step; threads would wait at every operation, which is slow
    on a machine that has other things to do.
    """

    def __init__(self, args: argparse.Namespace, rank: int) -> None:
        torch.manual_seed(args.seed)
        torch.set_num_threads(1)
        self.rank = rank
        if args.compile:
            compile_blocks()
        self.args = args
        self.plan = Plan(args.vision_steps, args.steps, args.decay_steps, args.rate)
        self.encoder = text.Encoder(args.out)
        self.model = TinyLlava(VisionConfig(), TextConfig())
        self.heads = PatchHeads(self.model.vision_config.hidden_size)
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
            lr=args.rate, betas=(0.9, 0.98), eps=1e-8, fused=True,
        )
        self.step = 0
        self.pixels, self.things = pool.load(args.work / "pool")
        self.checkpoint = args.work / "checkpoint.pt"
        self.check_set = [scenes.make_scene(scenes.scene_rng(CHECK_SEED, i)) for i in range(args.check_scenes)]
        self.check_pixels = np.stack([pool.to_pixels(scenes.draw(s)) for s in self.check_set])
        self.check_asked = [scenes.questions(s, scenes.scene_rng(CHECK_SEED, i, "questions")) for i, s in enumerate(self.check_set)]

    def precision(self) -> torch.autocast | nullcontext[None]:
        return torch.autocast("cpu", torch.bfloat16) if self.args.bf16 else nullcontext()

    def turn_loss(self, features: Tensor, turns: batches.Turns) -> tuple[Tensor, Tensor]:
        """The loss over answers, and for every learnt row whether the right token came first."""
        logits, rows = self.answer_logits(features, turns)
        targets, weights = turns.targets[rows], turns.weights[rows]
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        return (losses * weights).sum() / weights.sum(), logits.argmax(-1) == targets

    def answer_logits(self, features: Tensor, turns: batches.Turns) -> tuple[Tensor, Tensor]:
        """Logits [learnt rows, vocabulary] and the mask [B, T] of those rows."""
        phi = self.model.language_model
        prefix = torch.tensor([self.encoder.prefix])
        _, past = phi(phi.embed_tokens(prefix), torch.arange(prefix.shape[1])[None])
        rows = torch.cat((self.model.image_rows(features), phi.embed_tokens(turns.ids)), 1)
        out, _ = phi(rows, turns.positions, turns.mask, past)
        learnt = turns.targets >= 0
        return phi.logits(out[learnt]), learnt

    def train_step(self) -> tuple[float, float, float]:
        """One step; the loss over answers, the share of answer tokens right, the share of patches right."""
        plan, args = self.plan, self.args
        vision_only = self.step < plan.vision_steps
        # Drawn from the step's number, so that a resumed run is the same run.
        rng = np.random.default_rng((args.seed, self.step, self.rank))
        size = args.vision_batch if vision_only else args.batch
        chosen = np.sort(rng.integers(0, len(self.pixels), size // args.processes))
        pixels, things = batches.augment(self.pixels[chosen], self.things[chosen], rng)
        labels = batches.label_patches(things)
        with self.precision():
            features = self.model.vision_tower(to_pixels_tensor(torch.from_numpy(pixels)))
            loss, seen = self.heads.loss(features, labels)
            answer_loss, right = 0.0, 0.0
            if not vision_only:
                talk = random.Random(f"{args.seed} {self.step} {self.rank}")
                asked = [batches.ask(t, talk) for t in things]
                turns = batches.pack_turns(asked, self.encoder, conversation=talk.random() < 0.15)
                from_turns, hits = self.turn_loss(features, turns)
                answer_loss, right = from_turns.item(), hits.float().mean().item()
                loss = from_turns + args.patch_weight * loss
        for group in self.optimiser.param_groups:
            group["lr"] = plan.rate_at(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.average_gradients()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.step += 1
        return answer_loss, right, seen

    def average_gradients(self) -> None:
        """Over all processes; every one of them then takes the same step."""
        if self.args.processes == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.args.processes
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Accuracy by type on scenes never trained on.

        An answer whose every token comes first, given the ones before it, is the answer that greedy decoding gives.
        """
        tally: dict[str, list[bool]] = {}
        size = self.args.batch // self.args.processes  # as in training: nothing new to compile
        for first in range(0, len(self.check_set), size):
            pixels = torch.from_numpy(self.check_pixels[first : first + size])
            asked = self.check_asked[first : first + size]
            turns = batches.pack_turns(asked, self.encoder, conversation=False)
            with self.precision():
                logits, learnt = self.answer_logits(self.model.vision_tower(to_pixels_tensor(pixels)), turns)
            hits = torch.ones_like(learnt)
            hits[learnt] = logits.argmax(-1) == turns.targets[learnt]
            for i, kinds in enumerate(turns.kinds):
                for number, kind in enumerate(kinds):
                    tally.setdefault(kind, []).append(bool(hits[i][turns.owner[i] == number].all()))
        return {kind: sum(hits) / len(hits) for kind, hits in sorted(tally.items())}

    def save(self, path: Path) -> None:
        state = {
            "step": self.step, "model": self.model.state_dict(), "heads": self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])

    def go(self) -> None:
        args, plan = self.args, self.plan
        start, since = time.time(), np.zeros(4)
        while self.step < plan.steps:
            since += (*self.train_step(), 1)
            if self.rank > 0:
                continue
            if self.step % 50 == 0:
                loss, right, seen = since[:3] / since[3]
                minutes = (time.time() - start) / 60
                print(
                    f"step {self.step:6} {minutes:6.1f} min  answers {loss:.4f}  tokens right {right:.4f}"
                    f"  patches right {seen:.4f}  rate {plan.rate_at(self.step):.2e}",
                    flush=True,
                )
                since[:] = 0
            if self.step % args.save_every == 0 or self.step == plan.steps:
                self.save(self.checkpoint)
                if self.step > plan.vision_steps:
                    found = self.check()
                    print("check " + "  ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
                    export.write(self.model, self.encoder.end, args.out)


def train_tokenizer(folder: Path) -> None:
    """A vocabulary for the questions and answers of these scenes, and for the prompt around them."""
    corpus = [text.SYSTEM] * 300
    for i in range(3000):
        rng = scenes.scene_rng(CORPUS_SEED, i, "questions")
        for q in scenes.questions(scenes.make_scene(scenes.scene_rng(CORPUS_SEED, i)), rng):
            corpus.append(f"USER: \n{q['question']} ASSISTANT: {q['answer']}")
    text.train(corpus, folder)


def work(rank: int, args: argparse.Namespace) -> None:
    """The whole life of one process."""
    if args.processes > 1:
        dist.init_process_group("gloo", rank=rank, world_size=args.processes)
    run = Run(args, rank)
    if run.checkpoint.exists():
        run.resume(run.checkpoint)
    run.go()
    if args.processes > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the demo model.")
    parser.add_argument("--work", type=Path, required=True, help="a folder for pictures and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="where the model goes")
    parser.add_argument("--scenes", type=int, default=120_000)
    parser.add_argument("--vision-steps", type=int, default=2000, help="steps of the tower alone, by patch labels")
    parser.add_argument("--steps", type=int, default=12_200, help="steps in all")
    parser.add_argument("--decay-steps", type=int, default=5200, help="the last steps, over which the rate falls")
    parser.add_argument("--vision-batch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--patch-weight", type=float, default=0.3)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--save-every", type=int, default=1000)
    parser.add_argument("--check-scenes", type=int, default=160)
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not (args.out / "vocab.json").exists():
        train_tokenizer(args.out)
    if not (args.work / "pool" / "pixels.npy").exists():
        pool.build(args.work / "pool", TRAIN_SEED, args.scenes, args.processes)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29531")
    mp.spawn(work, (args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
