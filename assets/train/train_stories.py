#!/usr/bin/env python3
"""Trains the story model from nothing on two CPU cores and writes it as llama2.c's files.

    train_stories.py --text tinystories.txt.gz --work DIR --out ../stories

The text holds stories separated by lines `<|endoftext|>`. DIR takes the held-out stories (held-out.txt), checkpoints
and a log of the loss. A run that was stopped goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import os
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch._dynamo
import torch._inductor.config
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

import stories_format
from stories_model import Block, Llama, LlamaConfig

SEPARATOR = "<|endoftext|>"
BOS = 1
HOLD_OUT_EVERY = 30  # one story of so many is never trained on, 400 at most


def read_stories(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        stories = [story.strip() for story in file.read().split(SEPARATOR)]
    return [story for story in stories if story]


def split(stories: list[str]) -> tuple[list[str], list[str]]:
    """Training stories and held-out ones, by position; copies of held-out stories are not trained on."""
    held_out = stories[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY][:400]
    unseen = set(held_out)
    return [story for story in stories if story not in unseen], held_out


def train_tokenizer(stories: list[str], work: Path, size: int) -> Path:
    """A BPE vocabulary with byte fallback whose encoder changes nothing in the text."""
    lines = (work / "lines.txt")
    lines.write_text("\n".join(stories), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(work / "tokenizer"), model_type="bpe", vocab_size=size, byte_fallback=True,
        character_coverage=1.0, split_digits=True, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", input_sentence_size=400_000, shuffle_input_sentence=False,
    )
    return work / "tokenizer.model"


def zeropower(g: Tensor) -> Tensor:
    """The orthogonal factor of each matrix of g [n, rows, columns], roughly: five Newton-Schulz steps in bf16."""
    x = g.bfloat16()
    flip = x.shape[-2] > x.shape[-1]
    x = x.mT if flip else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if flip else x).float()


class Muon:
    """Momentum whose update of each matrix is made orthogonal (K. Jordan, 2024); the processes share the matrices."""

    def __init__(self, matrices: list[Tensor], weight_decay: float, rank: int, processes: int) -> None:
        self.matrices, self.weight_decay = matrices, weight_decay
        self.rank, self.processes = rank, processes
        self.momentum = [torch.zeros_like(m) for m in matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        update = torch.zeros(sum(m.numel() for m in self.matrices))
        parts = update.split([m.numel() for m in self.matrices])
        for i, (matrix, momentum) in enumerate(zip(self.matrices, self.momentum)):
            momentum.lerp_(matrix.grad, 0.05)
            if i % self.processes == self.rank:
                direction = zeropower(matrix.grad.lerp(momentum, 0.95)[None])[0]
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                parts[i].copy_((direction * scale).flatten())
        if self.processes > 1:
            dist.all_reduce(update)
        for matrix, part in zip(self.matrices, parts):
            matrix.mul_(1 - rate * self.weight_decay).sub_(part.view_as(matrix), alpha=rate)


class Rows:
    """Rows of seq_len + 1 ids: each begins with a story's BOS and goes on with the next stories of a shuffled epoch."""

    def __init__(self, stories: list[np.ndarray], length: int, seed: int) -> None:
        self.stories, self.length, self.seed = stories, length, seed
        self.epoch, self.rows = -1, []

    def _deal(self, epoch: int) -> None:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.stories))
        self.epoch, self.rows, row = epoch, [], []
        for i in order:
            row.extend(self.stories[i])
            if len(row) >= self.length:
                self.rows.append(np.array(row[: self.length]))
                row = []

    def take(self, step: int, count: int, per_epoch: int) -> Tensor:
        """The rows of one step; every epoch has the same number of steps, so that a resumed run is the same run."""
        epoch, at = divmod(step, per_epoch)
        if epoch != self.epoch:
            self._deal(epoch)
        return torch.from_numpy(np.stack([self.rows[(at * count + i) % len(self.rows)] for i in range(count)]))


class Run:
    """One of the processes that train together: each takes its share of every batch, then gradients are averaged."""

    def __init__(self, args: argparse.Namespace, rank: int) -> None:
        torch.manual_seed(args.seed)
        torch.set_num_threads(1)
        torch._dynamo.config.cache_size_limit = 64
        torch._inductor.config.cpp.threads = 1
        Block.forward = torch.compile(Block.forward, dynamic=False)  # type: ignore[method-assign]
        self.args, self.rank = args, rank
        self.spm = sentencepiece.SentencePieceProcessor(model_file=str(args.work / "tokenizer.model"))
        trained, held_out = split(read_stories(args.text))
        encode = lambda story: np.array([BOS, *self.spm.encode(story)], dtype=np.int64)  # noqa: E731
        self.config = LlamaConfig(vocab_size=args.vocab)
        self.rows = Rows([encode(s) for s in trained], self.config.seq_len + 1, args.seed)
        self.rows._deal(0)
        self.per_epoch = len(self.rows.rows) // args.batch
        self.held_out = held_out
        self.model = Llama(self.config, args.dropout)
        named = dict(self.model.named_parameters())
        self.parameters = list(named.values())
        matrices = [p for n, p in named.items() if p.ndim > 1 and not n.startswith("tok_")]
        others = [p for n, p in named.items() if p.ndim <= 1 or n.startswith("tok_")]
        self.muon = Muon(matrices, args.weight_decay, rank, args.processes)
        self.adam = torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.step = 0
        self.checkpoint = args.work / "checkpoint.pt"

    def factor(self) -> float:
        """Of the rate: it rises over the first steps, stays, and falls in a line over the last ones."""
        args = self.args
        return min((self.step + 1) / 100, 1.0, max((args.steps - self.step) / args.decay_steps, 0.02))

    def train_step(self) -> float:
        args = self.args
        mine = args.batch // args.processes
        ids = self.rows.take(self.step, args.batch, self.per_epoch)[self.rank * mine : (self.rank + 1) * mine]
        torch.manual_seed(args.seed + self.step * args.processes + self.rank)  # dropout, the same after a resumption
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        self.average_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.muon.step(args.muon_rate * self.factor())
        self.adam.param_groups[0]["lr"] = args.rate * self.factor()
        self.adam.step()
        self.step += 1
        return loss.item()

    def average_gradients(self) -> None:
        if self.args.processes == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in self.parameters])
        dist.all_reduce(flat)
        flat /= self.args.processes
        for p, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters])):
            p.grad.copy_(part.view_as(p.grad))

    @torch.no_grad()
    def check(self, stories: int) -> float:
        """Nats per byte on held-out stories, each from its own BOS, as far as one row reaches."""
        self.model.eval()
        nats, size = 0.0, 0
        for story in self.held_out[:stories]:
            ids = [BOS, *self.spm.encode(story)][: self.config.seq_len + 1]
            row = torch.full((1, self.config.seq_len + 1), BOS)
            row[0, : len(ids)] = torch.tensor(ids)  # one shape: nothing new to compile
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.model(row[:, :-1])[0, : len(ids) - 1]
            nats += F.cross_entropy(logits.float(), row[0, 1 : len(ids)], reduction="sum").item()
            size += len(self.spm.decode(ids[1:]).encode())
        self.model.train()
        return nats / size

    def save(self) -> None:
        state = {"step": self.step, "model": self.model.state_dict(), "muon": self.muon.momentum, "adam": self.adam.state_dict()}
        torch.save(state, self.checkpoint.with_suffix(".part"))
        self.checkpoint.with_suffix(".part").replace(self.checkpoint)

    def export(self) -> None:
        """The model, its logits larger by a factor: drawn at temperature 1, it then tells as at 1 / factor."""
        sharpened = copy.deepcopy(self.model)
        sharpened.norm.weight.data.mul_(self.args.sharpen)
        stories_format.write_q8(sharpened, self.args.out / "stories.bin", self.args.group_size)
        stories_format.write_fp32(sharpened, self.args.work / "stories-fp32.bin")

    def resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.step, self.muon.momentum = state["step"], state["muon"]
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])

    def go(self) -> None:
        args, start, losses = self.args, time.time(), []
        if self.rank == 0:
            weights = sum(p.numel() for p in self.parameters)
            print(f"{weights:,} weights, {self.per_epoch} steps an epoch", flush=True)
        while self.step < args.steps:
            losses.append(self.train_step())
            if self.rank > 0:
                continue
            if self.step % 20 == 0:
                minutes = (time.time() - start) / 60
                print(f"step {self.step:6} {minutes:6.1f} min  loss {sum(losses) / len(losses):.4f}", flush=True)
                losses = []
            if self.step % args.save_every == 0 or self.step == args.steps:
                self.save()
                found = self.check(400 if self.step == args.steps else 60)
                print(f"check {self.step} nats per byte {found:.4f}", flush=True)
        if self.rank == 0:
            self.export()


def work(rank: int, args: argparse.Namespace) -> None:
    """The whole life of one process."""
    if args.processes > 1:
        dist.init_process_group("gloo", rank=rank, world_size=args.processes)
    run = Run(args, rank)
    if run.checkpoint.exists():
        run.resume()
    run.go()
    if args.processes > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the story model.")
    parser.add_argument("--text", type=Path, required=True, help="stories, gzipped, separated by lines <|endoftext|>")
    parser.add_argument("--work", type=Path, required=True, help="a folder for checkpoints and the held-out stories")
    parser.add_argument("--out", type=Path, required=True, help="where the model and its tokenizer go")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--group-size", type=int, default=64, help="weights that share a scale in the Q8_0 file")
    parser.add_argument("--steps", type=int, default=2250)
    parser.add_argument("--decay-steps", type=int, default=1000, help="the last steps, over which the rate falls")
    parser.add_argument("--batch", type=int, default=16, help="rows of 512 tokens a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="of AdamW, for the embedding and the norms")
    parser.add_argument("--muon-rate", type=float, default=0.01)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--sharpen", type=float, default=1.25, help="the written model's logits are larger by this")
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split-only", action="store_true", help="write held-out.txt and train nothing")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    args.work.mkdir(parents=True, exist_ok=True)
    trained, held_out = split(read_stories(args.text))
    (args.work / "held-out.txt").write_text(f"\n{SEPARATOR}\n".join(held_out) + "\n", encoding="utf-8")
    if args.split_only:
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.work / "tokenizer.model").exists():
        train_tokenizer(trained, args.work, args.vocab)
    spm = sentencepiece.SentencePieceProcessor(model_file=str(args.work / "tokenizer.model"))
    stories_format.write_tokenizer(spm, args.out / "tokenizer.bin")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29532")
    mp.spawn(work, (args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
