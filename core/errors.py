"""Errors whose cause is the user's input, kept apart from our own bugs."""


class UserError(ValueError):
    """The user's input is at fault.

    The message is one line that names the file, the record and the remedy. The command
    line prints it and exits with code 2; every other exception is a bug of ours.
    """
