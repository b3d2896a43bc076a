"""What commands raise by themselves, and for what: `failures.py` says what becomes of it."""


class CommandError(Exception):
    """The thing asked for failed. The message is for the person at the terminal. Exit code 1."""


class UsageError(Exception):
    """The command was given something that it cannot mean. Exit code 2."""
