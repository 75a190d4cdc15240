#!/usr/bin/env python3
"""Makes tests/golden/stories: small Llama models in llama2.c's files and in Hugging Face directories, and what
llama2.c and transformers say of them.

    make_story_goldens.py --llama2c DIR [--data DIR] [--out DIR]

DIR of --llama2c holds llama2.c's run.c and runq.c; they are compiled here with -O3. --data names a folder with Llama 2's
vocabulary (llama2-tokenizer.bin, llama2-tokenizer.model); without it llama2_ids.json stays as it is. README.md tells what
every file holds. A model whose text repeats itself, or hangs on a near-tie, is refused: give it another seed.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from llama_directories import make_directories, normal
from make_tokenizer_goldens import CASES, Random, random_text

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "assets" / "train"))
import scenes  # noqa: E402
import stories_format  # noqa: E402
from stories_model import Llama, LlamaConfig  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "stories"
VOCAB = 336
BOS = 1
LEAST_GAP = 1e-3  # between the two best logits of a greedy step: a hundred times what fp32 may differ
LEAST_DISTINCT, LEAST_AT_END = 40, 16  # different tokens in a greedy text, and in the last 64 of them

# --- text of our own -----------------------------------------------------------------------------------------

# Some letters beyond ASCII, so that pieces of several bytes exist.
FOREIGN = ["une étoile rouge et un café", "drei schöne bäume", "日 日"]


def sentences(seed: int, count: int) -> list[str]:
    """Captions, questions and answers about scenes."""
    found = []
    for index in range(count):
        scene = scenes.make_scene(scenes.scene_rng(seed, index))
        for asked in scenes.questions(scene, scenes.scene_rng(seed, index, "questions")):
            found += [asked["question"], asked["answer"]]
    return found


def documents() -> list[str]:
    """What perplexity is measured on: one that fits any window, some that need several."""
    captions = [text for text in sentences(5, 60) if text.endswith(".")]
    return [
        captions[0],
        " ".join(captions[1:8]),
        "\n".join(captions[8:26]),
        "Où est l'étoile ?  Drei schöne Bäume, 日本 🌙!",
        " ".join(sentences(6, 4)),
    ]


def train_tokenizer() -> sentencepiece.SentencePieceProcessor:
    """Of lower case: capitals fall back to bytes."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(text.lower() for text in sentences(1, 400) + FOREIGN * 20), model_writer=model,
        model_type="bpe", vocab_size=VOCAB,
        byte_fallback=True, character_coverage=1.0, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


# --- llama2.c ------------------------------------------------------------------------------------------------

# Run instead of the program's own main: reads texts in hexadecimal, prints their ids as generate() would have them.
ENCODE = r"""
#define TESTING
#include "run.c"
int main(int argc, char** argv) {
  Tokenizer t;
  build_tokenizer(&t, argv[1], atoi(argv[2]));
  static char line[100000], text[50000];
  static int ids[50003];
  while (fgets(line, sizeof line, stdin)) {
    int n = 0, bytes = 0;
    for (unsigned value; sscanf(line + 2 * bytes, "%2x", &value) == 1; ++bytes) text[bytes] = (char)value;
    text[bytes] = 0;
    encode(&t, text, 1, 0, ids, &n);
    for (int i = 0; i < n; ++i) printf("%d ", ids[i]);
    printf("\n");
  }
  return argc - 3;
}
"""
# Put in after the choice of a token: tells on stderr which, and how far the best logit is from the second.
TOLD = r"""
        { float best = -1e30f, second = -1e30f;
          for (int i = 0; i < transformer->config.vocab_size; i++) {
              float l = logits[i];
              if (l > best) { second = best; best = l; } else if (l > second) { second = l; }
          }
          fprintf(stderr, "told %d %d %g\n", next, pos < num_prompt_tokens - 1, best - second); }
        pos++;

        // data-dependent"""
TOLD_AT = "\n        pos++;\n\n        // data-dependent"


class Llama2c:
    """The programs of llama2.c, as they are and telling more, compiled into a temporary folder."""

    def __init__(self, sources: Path, folder: Path) -> None:
        self.folder = folder
        for name in ("run", "runq"):
            source = (sources / f"{name}.c").read_text(encoding="utf-8")
            if source.count(TOLD_AT) != 1:
                raise SystemExit(f"{sources / name}.c is not the llama2.c that this script knows")
            self.compile(name, source)
            self.compile(f"{name}-telling", source.replace(TOLD_AT, TOLD))
        (folder / "run.c").write_text((sources / "run.c").read_text(encoding="utf-8"), encoding="utf-8")
        self.compile("encode", ENCODE)

    def compile(self, name: str, source: str) -> None:
        file = self.folder / f"{name}-main.c"
        file.write_text(source, encoding="utf-8")
        subprocess.run(["gcc", "-O3", "-w", "-o", self.folder / name, file, "-lm"], check=True)

    def encode(self, tokenizer: Path, vocab: int, texts: list[bytes]) -> list[list[int]]:
        lines = "".join(text.hex() + "\n" for text in texts)
        command = [self.folder / "encode", tokenizer, str(vocab)]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
        return [[int(value) for value in line.split()] for line in done.stdout.splitlines()]

    def run(self, program: str, model: Path, tokenizer: Path, options: list[str]) -> tuple[bytes, list[list[str]]]:
        """What a program prints, and what is told of each step: the token, whether it was given, the gap."""
        command = [model, "-z", tokenizer, *options]
        plain = subprocess.run([self.folder / program, *command], capture_output=True, check=True)
        telling = subprocess.run([self.folder / f"{program}-telling", *command], capture_output=True, check=True)
        assert plain.stdout == telling.stdout
        return plain.stdout, [found.split() for found in re.findall(r"told (.*)", telling.stderr.decode())]


# --- models in llama2.c's files --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """A model's shape, and the files to write it to: name → group size, None for fp32."""

    seed: int
    config: LlamaConfig
    tied: bool
    group_sizes: dict[str, int | None]


def shape(dim: int, hidden: int, kv_heads: int, seq_len: int) -> LlamaConfig:
    return LlamaConfig(dim, hidden, n_layers=2, n_heads=4, n_kv_heads=kv_heads, vocab_size=VOCAB, seq_len=seq_len)


SPECS = [
    Spec(12, shape(24, 32, 4, 256), True, {"tied.v0.bin": None}),
    Spec(20, shape(16, 24, 2, 300), False, {"grouped.v0.bin": None, "grouped.v1.bin": None}),
    Spec(42, shape(32, 64, 4, 256), True, {"tied.v2.bin": 32}),
    Spec(6, shape(32, 48, 2, 272), False, {"grouped.v2.bin": 16}),
]


def deviation(name: str, fan_in: int) -> float:
    """So that a token's own embedding is a small part of what its logits come from, or it would go on repeating."""
    gain = {"tok_embeddings": 4.0, "output": 4.0, "wo": 2.5, "w2": 2.5}
    return gain.get(name.split(".")[-2], 2.0) / fan_in**0.5


@torch.no_grad()
def make_model(spec: Spec) -> Llama:
    model = Llama(spec.config, tied=spec.tied).requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.copy_(normal(spec.seed, name, weight.shape, 1.0, 0.2))
        else:
            weight.copy_(normal(spec.seed, name, weight.shape, 0.0, deviation(name, weight.shape[1])))
    classifier = model.tok_embeddings if model.output is None else model.output
    classifier.weight[3:259] *= 0.7  # bytes, most of which nobody would see, less often
    classifier.weight[BOS] *= 0.75  # it ends a text
    return model


def write_model(spec: Spec, model: Llama, folder: Path) -> None:
    for name, group_size in spec.group_sizes.items():
        if group_size is not None:
            stories_format.write_q8(model, folder / name, group_size)
        elif ".v1." in name:
            stories_format.write_fp32_v1(model, folder / name)
        else:
            stories_format.write_fp32(model, folder / name)


# --- what run and runq print -------------------------------------------------------------------------------------

PROMPTS = ["", "Is the red star above the boat?", "Où sont le café et l'étoile ? schön 日本 🌙"]
LONG = "A red star twinkles above a blue boat. " * 20  # more tokens than a context holds


@dataclass(frozen=True)
class Story:
    """Options of a run, as they are given: None is left out."""

    prompt: str | None
    temperature: float
    top_p: float | None = None
    seed: int | None = None
    steps: int = 256

    def options(self) -> list[str]:
        given = {"-i": self.prompt, "-t": self.temperature, "-p": self.top_p, "-s": self.seed, "-n": self.steps}
        return [word for key, value in given.items() if value is not None for word in (key, str(value))]


STORIES = [
    *(Story(prompt, 0.0) for prompt in PROMPTS),
    *(Story("A red star", 1.0, 0.9, seed) for seed in (1, 2, 3, 4)),
    *(Story("", 0.8, 1.0, seed) for seed in (1, 2)),
]
# How far run.c goes, and what it makes of odd options. The first model's context is 256.
EDGES = [
    Story(None, 0.0, steps=3), Story("", 0.0, steps=1), Story(PROMPTS[1], 0.0, steps=5), Story("The", 0.0, steps=0),
    Story("The", 0.0, steps=1000), Story("The", 0.0, steps=-4), Story(LONG, 0.0), Story("The", -1.0, steps=20),
    Story(" A", 0.0, steps=20), Story("\n\tA", 0.0, steps=20), Story("A", 1.0, 0.0, 7, 40), Story("A", 1.0, 1.5, 7, 40),
    Story("A", 1.0, 0.02, 7, 40), Story("A", 10.0, 0.9, 7, 60), Story("A", 1.0, 0.9, 123456789, 40),
]  # fmt: skip


def check_greedy(name: str, model: Llama | None, told: list[list[str]]) -> float:
    """The least gap. `model`, given when it computes as the file does, has to choose the same tokens."""
    ids = [BOS, *(int(step[0]) for step in told)]
    chosen = [int(step[0]) for step in told if step[1] == "0"]
    gap = min(float(step[2]) for step in told if step[1] == "0")
    distinct, at_end = len(set(chosen)), len(set(chosen[-64:]))
    problems = ["it hangs on a near-tie"] if gap < LEAST_GAP else []
    if len(chosen) > 200 and (distinct < LEAST_DISTINCT or at_end < LEAST_AT_END):
        problems.append("it repeats itself")
    if BOS in chosen:
        problems.append("it ends early")
    if model is not None and model(torch.tensor([ids[:-1]]))[0].argmax(-1)[-len(chosen) :].tolist() != chosen:
        problems.append("the model in Python chooses other tokens")
    print(f"  {name}: {len(told)} steps, {distinct} different tokens, {at_end} at the end, least gap {gap:.2g}")
    if problems:
        raise SystemExit(f"{name}: {', '.join(problems)}; choose another seed")
    return gap


def tell_stories(llama2c: Llama2c, folder: Path) -> list[dict[str, Any]]:
    runs = []
    for index, spec in enumerate(SPECS):
        model = make_model(spec)
        write_model(spec, model, folder)
        name, group_size = next(iter(spec.group_sizes.items()))
        program = "run" if group_size is None else "runq"
        for story in STORIES + (EDGES if index == 0 else []):
            out, told = llama2c.run(program, folder / name, folder / "tokenizer.bin", story.options())
            entry = {"model": name, "program": program, **vars(story), "tokens": len(told)}
            if story.temperature <= 0 and any(step[1] == "0" for step in told):
                entry["least_gap"] = check_greedy(name, model if group_size is None else None, told)
            runs.append({**entry, "stdout": out.decode()})  # whole pieces and ASCII: it is UTF-8
    return runs


# --- ids ---------------------------------------------------------------------------------------------------------

TEXTS = [
    "Once upon a time", " Once upon a time", "  two", "a  b   c    d", "trailing ", "\n", "\n\n", "\ta", "a\r\nb",
    "42 and 1234567", "Is it a café? No: 日本.", "naïve façade", "ﬁ ½ ①", "▁", "a▁b", "<s>", "</s>", "<unk>", "a<s>b",
    "<0x41>", "<0x0A>x", "\ufffd", "ok🎉ok", "👩‍👩‍👧‍👦 🇩🇪", "e\u0301", "\u00a0x", "don't", "THE RED STAR", "xyzzy Qq",
    "=== --- ***", "def f(x):\n    return x + 1\n",
]  # fmt: skip
# Not UTF-8: stray and missing continuation bytes, too long a form, a surrogate, bytes that never occur.
BROKEN = [
    b"\x80", b"a\xbf\xbfb", b"\xe6\x97", b"\xe6\x97a", b"\xc0\xaf", b"\xed\xa0\x80", b"\xff\xfe",
    b"\xf0\x9f\x8c\x99\x99\x99", b"\xc3",
]  # fmt: skip


def texts() -> list[str]:
    random = Random(20_240_502)
    generated = [text for text in (random_text(random) for _ in range(1500)) if len(text.encode()) <= 60]
    listed = [text for text in CASES if len(text.encode()) <= 120]
    found = dict.fromkeys(TEXTS + listed + sentences(9, 4) + generated[:50])
    return [text for text in found if "\0" not in text]  # C strings end there


def ids_cases(
    llama2c: Llama2c, tokenizer: Path, spm: sentencepiece.SentencePieceProcessor, wanted: list[str]
) -> list[dict[str, Any]]:
    """Texts with the ids of llama2.c and, where it differs, of sentencepiece; both with BOS first."""
    inputs: list[tuple[dict[str, str], bytes]] = [({"text": text}, text.encode()) for text in wanted]
    inputs += [({"hex": data.hex()}, data) for data in BROKEN]
    cases = []
    for (named, data), ids in zip(inputs, llama2c.encode(tokenizer, spm.get_piece_size(), [data for _, data in inputs])):
        case = {**named, "ids": ids}
        other = [BOS, *spm.encode(data)]
        cases.append(case if other == ids else {**case, "sentencepiece": other})
    differing = [case for case in cases if "sentencepiece" in case]
    print(f"{tokenizer.name}: {len(cases)} texts, sentencepiece differs on {len(differing)}")
    for case in differing:
        print("  ", ascii(case.get("text", case.get("hex")))[:100])
    return cases


# --- all of it -----------------------------------------------------------------------------------------------------


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    lines = (json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes tests/golden/stories.")
    parser.add_argument("--llama2c", type=Path, required=True, help="a folder with llama2.c's run.c and runq.c")
    parser.add_argument("--data", type=Path, help="a folder with llama2-tokenizer.bin and llama2-tokenizer.model")
    parser.add_argument("--out", type=Path, default=GOLDEN)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    spm = train_tokenizer()
    stories_format.write_tokenizer(spm, args.out / "tokenizer.bin")
    with tempfile.TemporaryDirectory() as folder:
        llama2c = Llama2c(args.llama2c, Path(folder))
        write_lines(args.out / "runs.json", tell_stories(llama2c, args.out))
        write_lines(args.out / "ids.json", ids_cases(llama2c, args.out / "tokenizer.bin", spm, texts()[:90]))
        if args.data:
            real = sentencepiece.SentencePieceProcessor(model_file=str(args.data / "llama2-tokenizer.model"))
            cases = ids_cases(llama2c, args.data / "llama2-tokenizer.bin", real, texts())
            write_lines(args.out / "llama2_ids.json", cases)
    make_directories(args.out, spm, documents())
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{size / 1e3:.0f} kB in {args.out.name}/")


if __name__ == "__main__":
    main()
