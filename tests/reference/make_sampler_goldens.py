"""The probabilities that Hugging Face's generate() would draw from, for tests/llm/sampler_test.cc.

    python tests/reference/make_sampler_goldens.py

writes tests/golden/sampler.json: for some logits, histories and options, the softmax of what the logits
processors of transformers leave, in the order in which generate() applies them. Versions: requirements.txt.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "sampler.json"
VOCAB = 12
# temperature, top_k, top_p, repetition_penalty
OPTIONS = [
    (1.0, 0, 1.0, 1.0), (0.7, 0, 1.0, 1.0), (2.0, 0, 1.0, 1.0), (1.0, 1, 1.0, 1.0), (1.0, 4, 1.0, 1.0), (0.8, 50, 1.0, 1.0),
    (1.0, 0, 0.9, 1.0), (1.0, 0, 0.3, 1.0), (1.0, 0, 0.01, 1.0), (1.5, 5, 0.8, 1.0), (1.0, 0, 1.0, 1.5), (1.0, 0, 1.0, 0.7),
    (0.6, 6, 0.95, 1.3), (3.0, 3, 0.5, 1.1),
]


def probabilities(logits: torch.Tensor, history: list[int], options: tuple[float, int, float, float]) -> torch.Tensor:
    temperature, top_k, top_p, penalty = options
    processors = LogitsProcessorList()
    if penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(penalty))
    if temperature != 1:
        processors.append(TemperatureLogitsWarper(temperature))
    if top_k != 0:
        processors.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        processors.append(TopPLogitsWarper(top_p))
    return torch.softmax(processors(torch.tensor([history], dtype=torch.long), logits[None].clone()), -1)[0]


def main() -> None:
    generator = torch.Generator().manual_seed(1)
    cases = []
    for i, options in enumerate(OPTIONS):
        logits = torch.randn(VOCAB, generator=generator) * 2
        if i % 3 == 1:  # equal ones; with whole logits top-k meets them
            logits = logits.round()
        history = torch.randint(0, VOCAB, (5,), generator=generator).tolist()
        cases.append({
            "logits": [round(value, 4) for value in logits.tolist()], "history": history,
            **dict(zip(("temperature", "top_k", "top_p", "repetition_penalty"), options)),
        })
        kept = probabilities(torch.tensor(cases[-1]["logits"]), history, options)
        cases[-1]["probabilities"] = [round(value, 6) for value in kept.tolist()]
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
