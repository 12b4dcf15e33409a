"""Laws of a tokenizer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from core.errors import UserError
from core.tokenizers.base import Tokenizer
from pipelines.check._law import require


def laws(member: type[Tokenizer[Any]]) -> Iterator[str]:
    tokenizer, source = member(), random.Random(0)
    size = tokenizer.vocabulary.size
    yield require(len(tokenizer.letters) == size, "every data token has a written form")
    for _ in range(200):
        ids = [source.randrange(size) for _ in range(source.randrange(1, 30))]
        value = tokenizer.decode(ids)
        require(tokenizer.decode(tokenizer.encode(value)) == value, "decode(encode(x)) is x")
    yield "ok  decode(encode(x)) is x"
    for _ in range(200):
        try:
            tokenizer.decode([source.randrange(-3, size + 9) for _ in range(5)])
        except UserError:
            continue
    yield "ok  arbitrary ids decode or are refused"
