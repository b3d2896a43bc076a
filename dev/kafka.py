"""Real Apache Kafka (KRaft) on loopback: one broker or several, each broker and controller at once.

Stands apart because it knows how brokers are configured, formatted and found. Ports and data of a
broker stay the same over stop, kill and start.
"""

import base64
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from dev.cache import Say, kafka_class_path, say_nothing
from dev.java import JavaProgram, java_environment
from dev.ports import LOOPBACK, accepts, free_port
from dev.process import OwnedProcess, Program

READY_TIMEOUT_S: Final = 90.0
FORMAT_TIMEOUT_S: Final = 60.0
ADMIN_TIMEOUT_S: Final = 30.0
HEAP_MB: Final = 256

LOG_SETTINGS: Final = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n%throwable
"""

# Small and prompt: little memory per broker, failures noticed in seconds, short sessions allowed.
TUNED: Final[Mapping[str, str]] = {
    "auto.create.topics.enable": "false",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "4000",
    "controlled.shutdown.retry.backoff.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.io.threads": "4",
    "num.network.threads": "2",
    "offsets.topic.num.partitions": "4",
    "replica.lag.time.max.ms": "4000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "transaction.state.log.num.partitions": "4",
}


def kafka_program(say: Say) -> JavaProgram:
    """The JVM program of a broker and of Kafka's tools; downloads Kafka if it is not there."""
    return JavaProgram(name="kafka", entry=("-cp", kafka_class_path(say)), heap_mb=HEAP_MB)


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker: its number, ports, folder and process."""

    node_id: int
    port: int
    controller_port: int
    home: Path
    process: OwnedProcess

    @property
    def address(self) -> str:
        """Where clients reach this broker."""
        return f"{LOOPBACK}:{self.port}"

    def serves(self) -> bool:
        """Whether the broker's port is open."""
        return accepts(self.port)

    def start(self) -> None:
        """Start and wait for the open port (the cluster may still elect leaders)."""
        self.process.start()
        self.process.wait_ready(self.serves, timeout_s=READY_TIMEOUT_S)

    def stop(self) -> None:
        """Controlled shutdown: leaders move first."""
        self.process.stop(timeout_s=20)

    def restart(self) -> None:
        """Stop, start."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.process.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.thaw()


class KafkaCluster:
    """`brokers` combined brokers and controllers; with three, any one may be lost.

    `settings` are added to every broker's server.properties. `port` is asked for the first broker.
    """

    def __init__(
        self,
        *,
        brokers: int = 1,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        say: Say = say_nothing,
        program: JavaProgram | None = None,
        niceness: int = 0,
    ) -> None:
        self.cluster_id = new_cluster_id()
        self.home = Path(tempfile.mkdtemp(prefix="viewkeeper-kafka-"))
        self._program = program
        self._say = say
        self._settings = dict(settings or {})
        self._ports = [
            (free_port(port if index == 0 else None), free_port()) for index in range(brokers)
        ]
        self._niceness = niceness
        self.brokers: Sequence[Broker] = ()

    @property
    def port(self) -> int:
        """The port of the first broker."""
        return self._ports[0][0]

    @property
    def bootstrap_servers(self) -> str:
        """Every broker's address, comma-separated."""
        return ",".join(f"{LOOPBACK}:{port}" for port, _ in self._ports)

    def start(self, command: Callable[..., list[str]] | None = None) -> None:
        """Format at the first start, start every broker, return when all are in the cluster.

        `command` builds the command line of a broker in place of `JavaProgram.command` (training).
        """
        program = self._program = self._program or kafka_program(self._say)
        if not self.brokers:
            self.brokers = self._lay_out(command or program.command)
            self._format(program)
        for broker in self.brokers:
            broker.process.start()
        for broker in self.brokers:
            broker.process.wait_ready(broker.serves, timeout_s=READY_TIMEOUT_S)
        self.wait_ready()

    def wait_ready(self, *, brokers: int | None = None, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when the cluster counts so many live brokers (all of them if not told)."""
        wanted = len(self.brokers) if brokers is None else brokers
        watched = next(broker for broker in self.brokers if broker.process.running)
        admin = self.admin()
        watched.process.wait_ready(lambda: _live_brokers(admin) >= wanted, timeout_s=timeout_s)

    def stop(self, *, timeout_s: float = 20.0) -> None:
        """Stop every broker, all at once (no leader has anywhere to go)."""
        for broker in self.brokers:
            broker.process.request_stop()
        for broker in self.brokers:
            broker.process.stop(timeout_s=timeout_s)

    def kill(self) -> None:
        """SIGKILL every broker."""
        for broker in self.brokers:
            broker.kill()

    def restart(self) -> None:
        """Stop and start all on the same ports and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End every broker at once and remove the data."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def admin(self) -> AdminClient:
        """A new admin client."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def create_topic(
        self, name: str, *, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> None:
        """Create a topic, replicated to every broker, and wait until it is known."""
        topic = NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=len(self._ports),
            config=dict(config or {}),
        )
        admin = self.admin()  # must outlive the call: its end cancels what it was asked
        admin.create_topics([topic])[name].result(ADMIN_TIMEOUT_S)

    def _lay_out(self, command: Callable[..., list[str]]) -> list[Broker]:
        log_settings = self.home / "log4j2.properties"
        log_settings.write_text(LOG_SETTINGS)
        return [
            self._broker(node_id, ports, command)
            for node_id, ports in enumerate(self._ports, start=1)
        ]

    def _broker(
        self, node_id: int, ports: tuple[int, int], command: Callable[..., list[str]]
    ) -> Broker:
        home = self.home / f"broker-{node_id}"
        home.mkdir()
        properties = home / "server.properties"
        lines = self._properties(node_id, ports, home / "data").items()
        properties.write_text("".join(f"{name}={value}\n" for name, value in lines))
        process = self._own(
            f"kafka broker {node_id}", home, command("kafka.Kafka", str(properties))
        )
        return Broker(node_id, ports[0], ports[1], home, process)

    def _format(self, program: JavaProgram) -> None:
        """Give each data folder its identity: Kafka's own tool, the brokers side by side."""
        runs = []
        for broker in self.brokers:
            tool = ("kafka.tools.StorageTool", "format", "--cluster-id", self.cluster_id)
            config = ("--config", str(broker.home / "server.properties"))
            name = f"kafka format {broker.node_id}"
            run = self._own(name, broker.home, program.command(*tool, *config), log="format.log")
            run.start()
            runs.append(run)
        for run in runs:
            if run.wait(FORMAT_TIMEOUT_S) != 0:
                raise RuntimeError(f"{run.program.name} failed:\n{run.log_tail()}")

    def _properties(self, node_id: int, ports: tuple[int, int], data_dir: Path) -> dict[str, str]:
        copies = str(len(self._ports))
        in_sync = str(min(2, len(self._ports)))
        voters = (f"{i}@{LOOPBACK}:{p}" for i, (_, p) in enumerate(self._ports, start=1))
        client, controller = (f"{LOOPBACK}:{port}" for port in ports)
        return {
            "process.roles": "broker,controller",
            "node.id": str(node_id),
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{client}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(data_dir),
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            **TUNED,
            **self._settings,
        }

    def _own(
        self, name: str, home: Path, command: list[str], log: str = "broker.log"
    ) -> OwnedProcess:
        log_option = f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}"
        program = Program(
            name=name,
            command=[command[0], log_option, *command[1:]],
            cwd=home,
            environment=java_environment(),
            niceness=self._niceness,
        )
        return OwnedProcess(program, home / log)


def new_cluster_id() -> str:
    """An id as Kafka makes them: never with a dash first, which its tools take for an option."""
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made


def _live_brokers(admin: AdminClient) -> int:
    try:
        # describe_cluster would end this process where no broker is in the cluster yet.
        return len(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return 0
