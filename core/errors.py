"""Errors whose cause is the user's input, kept apart from our own bugs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """The user's input is at fault.

    The message is one line that names the file, the record and the remedy. The command
    line prints it and exits with code 2; every other exception is a bug of ours.
    """


@contextmanager
def as_user_error(label: str) -> Iterator[None]:
    """Around the making of a member: the arguments that it refuses are the user's error, told under `label`."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{label}: {' '.join(str(error).split())}") from error
