"""The downloaded parts: which versions, where they lie, and how they get there.

Stands apart because it alone uses the network. Every part is made in a staging folder and renamed
into place under a file lock: two processes may ask at once, one may be killed in the middle, and a
part that is there is whole.
"""

import fcntl
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from jgo.maven import MavenContext

POSTGRES_VERSION: Final = "18.6"
KAFKA_VERSION: Final = "4.1.2"
REGISTRY: Final = "io.apicurio:apicurio-registry-app"
REGISTRY_VERSION: Final = "3.3.3"
REGISTRY_SHA256: Final = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
JARS_FILE: Final = Path(__file__).with_name("kafka_jars.txt")
CACHE_VARIABLE: Final = "VIEWKEEPER_CACHE_DIR"
DOWNLOADS_AT_ONCE: Final = 8
DOWNLOAD_TIMEOUT_S: Final = 30.0  # without a byte

Say = Callable[[str], None]


def say_nothing(_: str) -> None:
    """For callers that show no progress."""


class PartUnavailableError(RuntimeError):
    """A server could not be downloaded, or is not what was pinned. Nothing was kept."""


def home_dir() -> Path:
    """The folder `.viewkeeper` of the checkout that the current folder is in."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").exists() or (folder / ".viewkeeper").exists():
            return folder / ".viewkeeper"
    return here / ".viewkeeper"


def cache_dir() -> Path:
    """Where downloaded parts lie: VIEWKEEPER_CACHE_DIR, else below the checkout."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else home_dir() / "cache"


def kafka_class_path(say: Say) -> str:
    """The class path of the pinned Kafka, downloaded if it is not there."""
    pins = _pins()
    fingerprint = hashlib.sha256(repr(pins).encode()).hexdigest()[:12]

    def fill(folder: Path) -> None:
        say(f"downloading Apache Kafka {KAFKA_VERSION} ({len(pins)} jars, 47 MB, once)")
        _download_jars(pins, folder)

    folder = part(f"kafka-{KAFKA_VERSION}-{fingerprint}", fill)
    return os.pathsep.join(str(jar) for jar in sorted(folder.glob("*.jar")))


def registry_home(say: Say) -> Path:
    """The folder of the pinned registry, downloaded and unpacked if it is not there."""

    def fill(folder: Path) -> None:
        say(f"downloading Apicurio Registry {REGISTRY_VERSION} (159 MB, once)")
        _download_registry(folder)

    return part(f"apicurio-{REGISTRY_VERSION}-{REGISTRY_SHA256[:12]}", fill)


def part(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made by `fill` if it does not exist.

    `fill` gets an empty folder and must leave it whole or raise. It runs in one process at a time.
    """
    folder = cache_dir() / name
    if folder.exists():
        return folder
    with _locked(name):
        if not folder.exists():
            _fill_and_rename(folder, fill)
    return folder


def _fill_and_rename(folder: Path, fill: Callable[[Path], None]) -> None:
    prefix = f".{folder.name}."
    for left_over in folder.parent.glob(f"{prefix}*.staging"):  # of a process that was killed
        shutil.rmtree(left_over)
    staging = Path(tempfile.mkdtemp(prefix=prefix, suffix=".staging", dir=folder.parent))
    try:
        fill(staging)
        staging.chmod(0o755)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging)
        raise


@contextmanager
def _locked(name: str) -> Iterator[None]:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel when we close it or die
        yield


def _pins() -> list[tuple[str, str]]:
    lines = JARS_FILE.read_text().splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return [(coordinate, digest) for coordinate, digest in pairs]


def _download_jars(pins: list[tuple[str, str]], folder: Path) -> None:
    def fetch(pin: tuple[str, str]) -> None:
        coordinate, digest = pin
        _download(client, _repository_path(coordinate, "jar"), folder=folder, sha256=digest)

    with _client() as client, ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        for _ in pool.map(fetch, pins):
            pass


def _download_registry(folder: Path) -> None:
    path = _repository_path(f"{REGISTRY}:{REGISTRY_VERSION}", "tar.gz", classifier="-all")
    with _client() as client:
        archive = _download(client, path, folder=folder, sha256=REGISTRY_SHA256)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()


def _repository_path(coordinate: str, packaging: str, *, classifier: str = "") -> str:
    """Where a file lies in a Maven repository (Maven's "default layout")."""
    group, name, version = coordinate.split(":")
    file_name = f"{name}-{version}{classifier}.{packaging}"
    return "/".join([*group.split("."), name, version, file_name])


def _download(client: httpx.Client, path: str, *, folder: Path, sha256: str) -> Path:
    """Download one file into the folder and compare it with its pin."""
    target = folder / Path(path).name
    found = hashlib.sha256()
    try:
        with client.stream("GET", path) as response, target.open("wb") as out:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                out.write(chunk)
                found.update(chunk)
    except httpx.HTTPError as error:
        raise PartUnavailableError(
            f"{target.name} could not be downloaded: {error}. Check the network, or point "
            f"{CACHE_VARIABLE} at the cache of a machine where it could."
        ) from error
    if found.hexdigest() != sha256:
        raise PartUnavailableError(
            f"{target.name} has SHA-256 {found.hexdigest()}, not the pinned {sha256}; not used. "
            "Try again; if it stays, the source or the pin is wrong."
        )
    return target


def _client() -> httpx.Client:
    """For the Maven repository that jgo would use: its default, or the user's own settings."""
    repository = next(iter(MavenContext().remote_repos.values()))
    return httpx.Client(base_url=repository, follow_redirects=True, timeout=DOWNLOAD_TIMEOUT_S)
