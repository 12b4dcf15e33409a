"""Biological sequences as ids, one file each."""

from typing import Any

from core.registry import Registry
from core.tokenizers.base import Tokenizer

registry: Registry[Tokenizer[Any]] = Registry("tokenizer", Tokenizer, __name__)
