"""What commands raise by themselves, and for what: `failures.py` says what becomes of it."""

from views import CATALOGUE


class CommandError(Exception):
    """The thing asked for failed. The message is for the person at the terminal. Exit code 1."""


class UsageError(Exception):
    """The command was given something that it cannot mean. Exit code 2."""


def known_topic(topic: str) -> str:
    """The topic. UsageError: no stream reads it."""
    if topic not in CATALOGUE.topics:
        raise UsageError(f"no stream reads topic {topic!r}: {', '.join(CATALOGUE.topics)}")
    return topic
