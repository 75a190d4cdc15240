"""The tokenizer (byte-level BPE, in Phi-2's files) and the prompt."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
BEFORE_IMAGE = SYSTEM + "USER: "
END = "<|endoftext|>"
SPACE_RUNS = [" " * n for n in range(8, 1, -1)]
TAB_RUNS = ["\t" * n for n in range(4, 1, -1)]
VOCAB_SIZE = 640


def train(corpus: Iterable[str], folder: Path) -> None:
    """Learns the merges and writes the six files of the published layout."""
    added = SPACE_RUNS + TAB_RUNS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE - len(added) - 1,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    model = json.loads(tokenizer.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    vocab[END] = len(vocab)
    assert len(vocab) == VOCAB_SIZE - len(added), "the corpus is too small for the vocabulary"
    ids = {run: len(vocab) + i for i, run in enumerate(added)}
    write_files(folder, vocab, model["merges"], ids)


def write_files(folder: Path, vocab: dict[str, int], merges: list[str], added: dict[str, int]) -> None:
    def token(content: str, special: bool) -> dict[str, object]:
        return {
            "content": content, "lstrip": False, "normalized": not special, "rstrip": False,
            "single_word": False, "special": special,
        }

    specials = {"bos_token": END, "eos_token": END, "pad_token": END, "unk_token": END}
    decoder = {str(vocab[END]): token(END, True)} | {str(i): token(run, False) for run, i in added.items()}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        **specials,
        "clean_up_tokenization_spaces": True,
        "model_max_length": 1024,
        "padding_side": "right",
        "tokenizer_class": "CodeGenTokenizer",
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["#version: 0.2", *(m if isinstance(m, str) else " ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    for name, value in [
        ("added_tokens.json", added),
        ("special_tokens_map.json", specials),
        ("tokenizer_config.json", config),
    ]:
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


class Encoder:
    """Text to ids and back, for text without special or added tokens."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        self.end: int = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))[END]
        self.encode = functools.lru_cache(maxsize=200_000)(self._encode)
        self.prefix = self.encode(BEFORE_IMAGE)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)

    def turn(self, question: str, answer: str, first: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """One turn as (what is given, what is to be learnt): the image stands before a first turn."""
        given = f"\n{question} ASSISTANT:" if first else f"USER: {question} ASSISTANT:"
        return self.encode(given), self.encode(" " + answer) + (self.end,)
