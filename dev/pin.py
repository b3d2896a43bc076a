"""Write `kafka_jars.txt`: the class path of the pinned Kafka, each jar with its SHA-256.

Run by hand (`python -m dev.pin`) after a version in `dev/cache.py` was changed. Stands apart
because it resolves dependencies, which takes many requests; everybody else downloads exactly what
it wrote. Kafka and its log binding are resolved apart: in one go their versions mix.
"""

import hashlib
import tempfile
from pathlib import Path

from jgo.maven import Artifact, MavenContext

from dev.cache import JARS_FILE, KAFKA_VERSION

HEADER = (
    "# The jars of Apache Kafka and its log binding, with their SHA-256. "
    "Made by `python -m dev.pin`.\n"
)
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"


def main() -> None:
    """Resolve, download, hash, write."""
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder))
        kafka = _resolve(context, f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
        log4j = next(a.version for a in kafka if a.artifactId == "log4j-core")
        binding = _resolve(context, f"{LOG_BINDING}:{log4j}")
        lines = sorted({_line(artifact) for artifact in [*kafka, *binding]})
    JARS_FILE.write_text(HEADER + "".join(lines))


def _resolve(context: MavenContext, coordinate: str) -> list[Artifact]:
    inputs, transitive = context.resolver.resolve([context.create_dependency(coordinate)])
    return [dependency.artifact for dependency in [*inputs, *transitive]]


def _line(artifact: Artifact) -> str:
    path = artifact.resolve()
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {digest}\n"


if __name__ == "__main__":
    main()
