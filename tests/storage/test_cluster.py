"""Which cluster a data directory is of: kept once, and never taken for another one (raft/storage/cluster.py)."""

from pathlib import Path

import pytest

from common.parsers import CLUSTER_ID_LENGTH_MAX
from raft.storage import WrongCluster
from raft.storage.cluster import CLUSTER_NAME, check_cluster, keep_cluster
from services.node.ended import advice_for, describe


def test_what_the_settings_say_holds_where_the_directory_says_nothing(tmp_path: Path) -> None:
    """Also where there is no directory yet: it is not made here."""
    missing = tmp_path / "none"

    assert check_cluster(missing, "c-1") == ("c-1", "")
    assert check_cluster(missing, "") == ("", "")
    assert not missing.exists()


@pytest.mark.parametrize("id", ["c", "A-z_0.9", "x" * CLUSTER_ID_LENGTH_MAX])
def test_an_id_that_is_kept_is_found_again(tmp_path: Path, id: str) -> None:
    keep_cluster(tmp_path, id)

    assert check_cluster(tmp_path, "") == (id, id)
    assert check_cluster(tmp_path, id) == (id, id)


def test_another_id_than_the_kept_one_is_refused_with_both_and_what_to_do(tmp_path: Path) -> None:
    """The node would speak for a cluster whose data it does not have."""
    keep_cluster(tmp_path, "c-1")

    with pytest.raises(WrongCluster) as refusal:
        check_cluster(tmp_path, "c-2")

    assert f"the data in {tmp_path} is of the cluster c-1, and MUFAKAT_CLUSTER_ID says c-2" == describe(refusal.value)
    assert "set MUFAKAT_CLUSTER_ID to c-1 or leave it out" in advice_for(refusal.value)


@pytest.mark.parametrize("content", [b"", b"c-1", b"a b\n", b"x" * 61 + b"\n", b"\xff\n", b"c-1\nc-2\n"])
def test_a_file_that_holds_no_id_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is not guessed, and not overwritten."""
    (tmp_path / CLUSTER_NAME).write_bytes(content)

    with pytest.raises(WrongCluster) as refusal:
        check_cluster(tmp_path, "c-1")

    assert "holds no id of a cluster" in str(refusal.value)
    assert (tmp_path / CLUSTER_NAME).read_bytes() == content
