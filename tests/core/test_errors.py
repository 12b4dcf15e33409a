"""Whose fault an error is."""

from __future__ import annotations

import pytest

from core.errors import UserError, as_user_error


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_refused_arguments_are_the_users_error_in_one_line(error: type[Exception]) -> None:
    with pytest.raises(UserError, match="^mixer mine: no such option$"), as_user_error("mixer mine"):
        raise error("no such\n  option")


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(UserError, match="^already told$"), as_user_error("mixer mine"):
        raise UserError("already told")
    with pytest.raises(ZeroDivisionError), as_user_error("mixer mine"):
        raise ZeroDivisionError
