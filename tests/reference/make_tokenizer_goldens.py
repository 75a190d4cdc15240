"""Token ids as Hugging Face's CodeGenTokenizerFast gives them, for tests/llm/tokenizer_golden_test.cc.

    python tests/reference/make_tokenizer_goldens.py --vocab tiny=tests/golden/tokenizer/tiny \
        --vocab demo=assets/demo --vocab phi2=PATH/TO/tokenizer.json

NAME=PATH is a directory with vocab.json and merges.txt, or a tokenizer.json. For each vocabulary it writes
to tests/golden/tokenizer/

  NAME.hashes       little-endian uint32: the number of strings, a hash of all their texts, for each string a
                    hash of its ids, and a bit a string that is set when it holds code points not yet assigned in
                    Unicode 14 (what Python 3.11, Hugging Face's Oniguruma and Debian 12's PCRE2 all know: a newer
                    PCRE2 may see letters there)
  NAME.cases.json   texts with all their ids, to see what goes wrong where a hash differs

and, whatever the vocabularies, classes.json: which code points Hugging Face's regex takes for letters, numbers
and spaces. The strings come from a generator that the C++ test repeats (tests/llm/random_text.h).
--train-tiny first makes the vocabulary tiny/ and tiny.tokenizer.json anew. Versions: requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CodeGenTokenizerFast

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tokenizer"
FRAGMENTS: list[list[str]] = json.loads((GOLDEN / "fragments.json").read_text(encoding="utf-8"))
STRINGS = 20_000
SEED = 20_240_501
MASK = (1 << 64) - 1
SURROGATES, CODE_POINTS = 0x800, 0x110000

# Texts whose ids are written out, besides the first of the generated ones.
CASES = [
    "", " ", "  ", "\n", "a", "Hello world", " Hello world", "What are these?",
    "def f():\n    return  1\n\n\n\tx",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: ", "\nWhat are these? ASSISTANT:",
    "<|endoftext|>USER: And now? ASSISTANT:", "a<|endoftext|>b", "<|endoftext|><|endoftext|>", "<|endoftext|",
    " <|endoftext|> ", "   <|endoftext|>\t\t", "<image>\nWhat is this?",
    *(" " * n + "x" for n in (2, 3, 7, 8, 9, 30, 31, 32, 33, 62, 63, 64, 100)),
    *("\t" * n for n in (1, 2, 3, 9, 10, 11, 19)), " \t \t", "\t  \t", "\n\n\n", " \n \n ", "\r\n\r\n", "a  b   c    d",
    "don't I'll we've they're it's I'd I'm 'twas DON'T I'LL", "’s ‘quoted’", "1234567890", "3.14159", "1,000,000", "x²+y³=½",
    "Ⅷ ٣٤٥ १२३ 一二三", "naïve café", "nai\u0308ve cafe\u0301", "ß ẞ İ ı ſ", "日本語の文章です。", "中文没有空格", "한국어 문장",
    "Привет, мир!", "γειά σου", "שלום", "مرحبا بالعالم", "नमस्ते", "สวัสดีชาวโลก", "🎉", "👩‍👩‍👧‍👦 🇩🇪 👍🏽", "e\u0301\u0301\u0301",
    "\u200b\u200d\ufeff", "\u00a0\u00a0x", "\u3000x\u2003y", "\u180e\u180ex", "\u0085x", "\u2028\u2029", "\x00\x01\x1f\x7f",
    "\ufffd\uffff", "\U0010ffff\U000e0001", "a" * 300, "ab" * 200, "!" * 200, "日" * 100, " a" * 100, "0" * 150, " \n" * 80,
]


class Random:
    """splitmix64."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, bound: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        mixed = self.state
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & MASK
        return (mixed ^ mixed >> 31) % bound


def code_point(random: Random, limit: int) -> str:
    """One of the code points under `limit` that are not surrogates, all equally likely."""
    point = random.below(limit - SURROGATES if limit > 0xD800 else limit)
    return chr(point + SURROGATES if point >= 0xD800 else point)


def fragment(random: Random) -> str:
    kind = FRAGMENTS[random.below(len(FRAGMENTS))]
    return kind[random.below(len(kind))]


def random_part(random: Random) -> str:
    kind = random.below(10)
    length = 1 + random.below(16)
    if kind < 2:
        return "".join(code_point(random, CODE_POINTS) for _ in range(length))
    if kind == 2:
        return "".join(code_point(random, 0x10000) for _ in range(length))
    if kind == 3:
        return "".join(code_point(random, 0x600) for _ in range(length))
    if kind == 4:
        return "".join(chr(32 + random.below(95)) for _ in range(2 * length))
    if kind < 9:
        return "".join(fragment(random) for _ in range(length))
    repeated = fragment(random) if random.below(2) else code_point(random, CODE_POINTS)
    return repeated * (length * length)


def random_text(random: Random) -> str:
    return "".join(random_part(random) for _ in range(1 + random.below(4)))


def fnv1a(data: bytes, state: int = 0x811C9DC5) -> int:
    for byte in data:
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return state


def load(path: Path) -> CodeGenTokenizerFast:
    if path.is_dir():
        return CodeGenTokenizerFast.from_pretrained(path)
    # tokenizers 0.19 reads merges as "a b" only; later versions write ["a", "b"].
    content = json.loads(path.read_text(encoding="utf-8"))
    merges = content["model"]["merges"]
    content["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    with tempfile.TemporaryDirectory() as folder:
        older = Path(folder) / "tokenizer.json"
        older.write_text(json.dumps(content), encoding="utf-8")
        return CodeGenTokenizerFast(tokenizer_file=str(older))


def write_goldens(name: str, tokenizer: CodeGenTokenizerFast) -> None:
    random = Random(SEED)
    texts = [random_text(random) for _ in range(STRINGS)]
    all_texts = 0x811C9DC5
    hashes = []
    newer = [0] * ((STRINGS + 31) // 32)
    for i, text in enumerate(texts):
        all_texts = fnv1a(text.encode() + b"\xff", all_texts)
        ids = tokenizer(text).input_ids
        hashes.append(fnv1a(struct.pack(f"<{len(ids)}I", *ids)))
        if any(unicodedata.category(character) == "Cn" for character in text):
            newer[i // 32] |= 1 << i % 32
    words = [STRINGS, all_texts, *hashes, *newer]
    (GOLDEN / f"{name}.hashes").write_bytes(struct.pack(f"<{len(words)}I", *words))
    cases = CASES + [text for text in texts[:60] if len(text) < 60]
    lines = [json.dumps({"text": text, "ids": tokenizer(text).input_ids}) for text in cases]
    (GOLDEN / f"{name}.cases.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    tokens = sum(len(tokenizer(text).input_ids) for text in texts)
    print(f"{name}: {STRINGS} strings, {sum(map(len, texts))} characters, {tokens} tokens, {len(cases)} cases")


def write_classes() -> None:
    """A letter joins "a", a number "1", what is neither nor a space "#"."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    classes = bytearray()
    for point in range(CODE_POINTS):
        if 0xD800 <= point < 0xE000:
            continue
        joins = (kind for kind, before in zip(b"LNO", "a1#") if len(split(before + chr(point))) == 1)
        classes.append(next(joins, ord("S")))
    counts = {chr(kind): count for kind, count in sorted(Counter(classes).items())}
    content = {"unicode": unicodedata.unidata_version, "counts": counts, "hash": fnv1a(bytes(classes))}
    (GOLDEN / "classes.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(content)


def tiny_sentences() -> list[str]:
    """Text of our own to train on: sentences about pictures, code, and a little of many scripts."""
    colours = ["red", "green", "blue", "yellow", "purple", "orange", "white", "black"]
    things = ["house", "tree", "fish", "star", "circle", "car", "boat", "flower", "cloud", "sun"]
    places = ["to the left of", "to the right of", "above", "below", "next to", "under"]
    sentences = []
    for i, colour in enumerate(colours):
        for j, thing in enumerate(things):
            place, other = places[(i + j) % len(places)], things[(3 * i + j + 1) % len(things)]
            sentences.append(f"A {colour} {thing} stands {place} a {colours[(i + 3) % 8]} {other}.")
            sentences.append(f"USER: What colour is the {thing}? ASSISTANT: The {thing} is {colour}.")
            sentences.append(f"USER: How many {other}s don't you see? ASSISTANT: I've counted {j + 1}.")
    for kind in FRAGMENTS:
        sentences += ["".join(kind), " ".join(kind)]
    return sentences


def train_tiny() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(tiny_sentences(), trainer)
    folder = GOLDEN / "tiny"
    folder.mkdir(exist_ok=True)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    runs = [" " * n for n in range(9, 1, -1)] + ["\t" * n for n in range(4, 1, -1)]
    added = {text: len(vocab) + i for i, text in enumerate(runs)}
    special = {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "unk")}
    write = lambda name, content: (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    write("vocab.json", vocab)
    write("added_tokens.json", added)
    write("special_tokens_map.json", special)
    write("tokenizer_config.json", {"tokenizer_class": "CodeGenTokenizer", **special})
    merges = "".join(f"{merge}\n" for merge in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    load(folder).backend_tokenizer.save(str(GOLDEN / "tiny.tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--train-tiny", action="store_true")
    args = parser.parse_args()
    write_classes()
    if args.train_tiny:
        train_tiny()
    for vocab in args.vocab:
        name, path = vocab.split("=", 1)
        write_goldens(name, load(Path(path)))


if __name__ == "__main__":
    main()
