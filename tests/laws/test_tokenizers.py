"""Laws of every tokenizer."""

import random

import pytest

from core.errors import UserError
from core.tokenizers.base import Tokenizer
from domains.tasks import DOMAINS, default_task

MEMBERS = [(d, key) for d in DOMAINS for key in default_task(d).package("tokenizers").registry.keys()]


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Round trip from ids, and arbitrary ids decode or are refused."""
    size = tokenizer.vocabulary.size
    assert len(tokenizer.letters) == size
    source = random.Random(0)
    for _ in range(200):
        ids = [source.randrange(size) for _ in range(source.randrange(1, 30))]
        assert list(tokenizer.encode(tokenizer.decode(ids))) == ids
    for _ in range(200):
        try:
            tokenizer.decode([source.randrange(-3, size + 9) for _ in range(5)])
        except UserError:
            pass
    assert tokenizer.to_json("key") == tokenizer.to_json("key")


@pytest.mark.parametrize("domain,key", MEMBERS)
def test_tokenizer(domain: str, key: str) -> None:
    check_tokenizer(default_task(domain).package("tokenizers").registry.get(key)())


def test_planted_fault_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = default_task("bio").make_tokenizer()
    right = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda value: right(value)[::-1])
    with pytest.raises(AssertionError):
        check_tokenizer(tokenizer)
