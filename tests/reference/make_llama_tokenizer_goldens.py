"""Token ids of Llama's kind of vocabulary, for tests/llm/llama_tokenizer_test.cc.

    python tests/reference/make_llama_tokenizer_goldens.py --train-tiny --vocab llama2=PATH/TO/tokenizer.model

--train-tiny trains a small vocabulary on text of our own and writes it to tests/golden/tokenizer/tiny-llama/ in its
three forms: tokenizer.model (sentencepiece), tokenizer.bin (as llama2.c exports it) and tokenizer.json (as
LlamaTokenizerFast saves it). For it and for each NAME=PATH of a tokenizer.model it writes to tests/golden/tokenizer/

  NAME.hashes      little-endian uint32: the number of strings, a hash of all their texts, for each string a hash of
                   its ids as sentencepiece gives them; the strings are those of make_tokenizer_goldens.py
  NAME.cases.json  texts with the ids of sentencepiece ("ids") and, where they differ, those of LlamaTokenizerFast
                   ("fast"), which knows control tokens by their names, and of its tokenizer.json changed in the ways
                   of VARIANTS

and prints in how many strings sentencepiece and LlamaTokenizerFast differ. Versions: requirements.txt.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer
from transformers import LlamaTokenizerFast

from make_tokenizer_goldens import CASES, GOLDEN, SEED, Random, fnv1a, random_text, tiny_sentences

STRINGS = 5_000


def metaspace(scheme: str, split: bool) -> dict[str, object]:
    step = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
    return {"normalizer": None, "pre_tokenizer": step}


# The test makes the same changes.
VARIANTS = {
    "first": metaspace("first", False),
    "words": metaspace("always", True),
    "never": metaspace("never", False),
    "normalized": {"added_tokens": "normalized"},
}
LLAMA_CASES = [
    "Once upon a time", "Once upon a time, there was a little girl named Lily.", " Once", "  Once", "\nOnce", "\n\n", "\t\tx",
    *(" " * n for n in range(1, 20)), *("a" + " " * n + "b" for n in (5, 11, 15, 16, 17, 31, 33)), "▁", "a▁b", " ▁ ▁▁",
    "<s>", "</s>", "<unk>", "<s>Once", "<s> Once", "a<s>b", "a</s> b", "x <s> y", "<s><s>", "<0x41>", "a<0x0A>b", "\n<s>\n",
    "\x00", "a\x00b", "\x01\x02", "é", "e\u0301", "\u00a0", "\r\n", "12345", "3.14", "ok🎉ok", "🎉🎉", "\ufffd", "\U0010ffff",
]


def write_bin(spm: sentencepiece.SentencePieceProcessor, path: Path) -> None:
    """As llama2.c's tokenizer.py: int32 longest piece; float32 score, int32 length, bytes."""
    pieces = []
    for i in range(spm.get_piece_size()):
        piece = spm.id_to_piece(i).replace("▁", " ")
        pieces.append((spm.get_score(i), (f"\n{piece}\n" if i in (1, 2) else piece).encode()))
    entries = b"".join(struct.pack("<fi", score, len(piece)) + piece for score, piece in pieces)
    path.write_bytes(struct.pack("<i", max(len(piece) for _, piece in pieces)) + entries)


def train_tiny() -> Path:
    folder = GOLDEN / "tiny-llama"
    folder.mkdir(exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny_sentences()), model_writer=model, model_type="bpe", vocab_size=600,
        byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, split_digits=True, num_threads=1, minloglevel=2,
    )
    path = folder / "tokenizer.model"
    path.write_bytes(model.getvalue())
    write_bin(sentencepiece.SentencePieceProcessor(model_file=str(path)), folder / "tokenizer.bin")
    LlamaTokenizerFast(vocab_file=str(path)).backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    return path


def variant(content: str, name: str) -> Tokenizer:
    changed = json.loads(content)
    for key, value in VARIANTS[name].items():
        if key == "added_tokens":
            for token in changed[key]:
                token[value] = True
        else:
            changed[key] = value
    return Tokenizer.from_str(json.dumps(changed))


def write_goldens(name: str, path: Path) -> None:
    spm = sentencepiece.SentencePieceProcessor(model_file=str(path))
    fast = LlamaTokenizerFast(vocab_file=str(path), add_bos_token=False)
    variants = {kind: variant(fast.backend_tokenizer.to_str(), kind) for kind in VARIANTS}
    random = Random(SEED)
    texts = [random_text(random) for _ in range(STRINGS)]
    all_texts = 0x811C9DC5
    hashes = []
    differ = []
    for text in texts:
        all_texts = fnv1a(text.encode() + b"\xff", all_texts)
        ids = spm.encode(text)
        hashes.append(fnv1a(struct.pack(f"<{len(ids)}I", *ids)))
        if fast(text).input_ids != ids:
            differ.append(text)
    (GOLDEN / f"{name}.hashes").write_bytes(struct.pack(f"<{STRINGS + 2}I", STRINGS, all_texts, *hashes))
    lines = []
    for text in dict.fromkeys(CASES + LLAMA_CASES + [text for text in texts[:40] if len(text) < 60]):
        case = {"text": text, "ids": spm.encode(text)}
        others = {"fast": fast(text).input_ids}
        others |= {kind: other.encode(text, add_special_tokens=False).ids for kind, other in variants.items()}
        lines.append(json.dumps({**case, **{kind: ids for kind, ids in others.items() if ids != case["ids"]}}))
    (GOLDEN / f"{name}.cases.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{name}: {STRINGS} strings, {len(differ)} differ, {len(lines)} cases")
    print(*[repr(text[:100]) for text in differ[:5]], sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--train-tiny", action="store_true")
    args = parser.parse_args()
    if args.train_tiny:
        train_tiny()
    write_goldens("tiny-llama", GOLDEN / "tiny-llama" / "tokenizer.model")
    for vocab in args.vocab:
        name, path = vocab.split("=", 1)
        write_goldens(name, Path(path))


if __name__ == "__main__":
    main()
