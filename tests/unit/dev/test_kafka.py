"""What can be said of the brokers without starting one."""

from dev.kafka import new_cluster_id


def test_no_cluster_id_looks_like_an_option() -> None:
    made = {new_cluster_id() for _ in range(2_000)}
    assert len(made) == 2_000
    assert not [each for each in made if each.startswith("-")]
    assert {len(each) for each in made} == {22}
