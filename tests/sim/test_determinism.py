"""The same seed is the same run, byte for byte, whatever the order of Python's sets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def trace_of(seed: int, machine: str, hash_seed: str, path: Path) -> bytes:
    command = [sys.executable, "-m", "tests.sim", "--seeds", "1", "--seed", str(seed), "--trace", str(path)]
    command += ["--machine", machine, "--events", "1200"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return path.read_bytes()


@pytest.mark.parametrize(("seed", "machine"), [(7, "small"), (11, "lock"), (12, "queue"), (13, "cache")])
def test_a_seed_gives_the_same_trace_under_other_hash_seeds(tmp_path: Path, seed: int, machine: str):
    """A failure that cannot be run again is worth nothing."""
    first = trace_of(seed, machine, "1", tmp_path / "first")

    second = trace_of(seed, machine, "4242", tmp_path / "second")

    assert len(first) > 10_000
    assert first == second
