"""Topics as people name them in a command."""

from cli.misuse import UsageError
from views import CATALOGUE


def known_topic(topic: str) -> str:
    """The topic. UsageError: no stream reads it."""
    if topic not in CATALOGUE.topics:
        raise UsageError(f"no stream reads topic {topic!r}: {', '.join(CATALOGUE.topics)}")
    return topic
