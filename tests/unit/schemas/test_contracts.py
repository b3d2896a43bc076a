"""What a contract file must be, beyond what a registry checks."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.contracts import ContractError, load, load_all, problems, subject_of
from views import CATALOGUE

ORDERS = load("orders.avsc").schema


def changed(change: Any) -> list[str]:
    """The faults of the orders contract after a change to it."""
    schema = copy.deepcopy(ORDERS)
    change({field["name"]: field for field in schema["fields"]}, schema)
    return list(problems(schema))


def test_every_stream_has_a_contract_without_faults() -> None:
    assert {contract.name for contract in load_all()} >= {s.contract for s in CATALOGUE.streams}
    assert load("payments.avsc").full_name == "com.viewkeeper.payments.PaymentEvent"
    assert subject_of("orders") == "orders-value"


def test_the_text_that_is_registered_is_the_whole_file() -> None:
    contract = load("orders.avsc")
    assert json.loads(contract.text) == contract.schema


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda _, s: s.pop("namespace"), "namespace"),
        (lambda _, s: s.pop("doc"), "the record has no doc"),
        (lambda f, _: f["amount"].pop("doc"), "OrderEvent.amount: has no doc"),
        (lambda f, _: f["status"]["type"].pop("default"), "the enum has no default"),
        (lambda f, _: f["amount"]["type"].update(scale=2), "must be decimal(18, 4)"),
        (lambda f, _: f["discount"]["type"][1].update(precision=9), "must be decimal(18, 4)"),
        (lambda f, _: f["version"].update(type="double"), "double cannot hold money"),
        (
            lambda f, _: f["placed_at"]["type"].update(logicalType="timestamp-millis"),
            "must be timestamp-micros",
        ),
        (
            lambda f, _: f["items"]["type"]["items"]["fields"][2]["type"].update(scale=0),
            "OrderEvent.items[].unit_price",
        ),
        (lambda f, _: f["version"].update(type="no.such.Type"), "is not an Avro schema"),
        (lambda _, s: s.update(type="array", items="int"), "must be one record"),
    ],
)
def test_a_fault_of_a_contract_is_named(change: Any, fault: str) -> None:
    assert any(fault in found for found in changed(change)), changed(change)


def test_all_faults_of_all_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.avsc").write_text("{")
    (tmp_path / "b.avsc").write_text(json.dumps(ORDERS | {"namespace": "", "doc": ""}))
    with pytest.raises(ContractError) as error:
        load_all(folder=tmp_path)
    assert "a.avsc: is not JSON" in str(error.value)
    assert "b.avsc: the record has no namespace" in str(error.value)
    with pytest.raises(ContractError, match=r"c\.avsc: cannot be read"):
        load("c.avsc", folder=tmp_path)
