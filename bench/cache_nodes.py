"""Three cache nodes as processes of their own, to be loaded, frozen and killed by whoever started them."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bench.load import Address

READY_WITHIN_S = 60


class CacheNodes:
    """A cluster of cache nodes on this machine.

    Args:
        home: directory for data and logs.
        prefixes: what each node's command begins with, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        home: Path,
        addresses: Sequence[Address],
        *,
        prefixes: Sequence[Sequence[str]] = (),
        **environ: str,
    ) -> None:
        self.home = home
        self.addresses = tuple(addresses)
        self.ids = tuple(f"cache{number}" for number in range(1, len(addresses) + 1))
        self._prefixes = prefixes or [()] * len(addresses)
        self._environ = environ
        self.processes: list[subprocess.Popen | None] = [None] * len(addresses)

    def start(self, number: int) -> None:
        """Start node `number` on what its disk kept."""
        id, host = self.ids[number], self.addresses[number][0]
        pairs = zip(self.ids, self.addresses, strict=True)
        cluster = ",".join(f"{id}={host}:{port}" for id, (host, port) in pairs)
        environ = {
            **os.environ,
            "MUFAKAT_NODE_ID": id,
            "MUFAKAT_GROUPS": "cache",
            "MUFAKAT_CLUSTER": cluster,
            "MUFAKAT_CLUSTER_SECRET": "only for this cluster",
            "MUFAKAT_DATA_DIR": str(self.home / id),
            "MUFAKAT_LISTEN_HOST": host,
            "MUFAKAT_PEER_LISTEN_HOST": host,
            **self._environ,
        }
        mufakat = str(Path(sys.executable).with_name("mufakat"))
        with open(self.home / f"{id}.log", "ab") as log:
            self.processes[number] = subprocess.Popen(
                [*self._prefixes[number], mufakat, "serve"], env=environ, stdout=log, stderr=log
            )

    def start_all(self) -> None:
        for number in range(len(self.ids)):
            self.start(number)

    def wait_ready(self, numbers: Sequence[int] | None = None) -> None:
        """Return when these nodes, or all, are ready. Raises TimeoutError."""
        give_up = time.monotonic() + READY_WITHIN_S
        for number in range(len(self.ids)) if numbers is None else numbers:
            while not self._is_ready(number):
                if time.monotonic() > give_up:
                    raise TimeoutError(f"{self.ids[number]} is not ready; see {self.home}")
                time.sleep(0.05)

    def _is_ready(self, number: int) -> bool:
        host, port = self.addresses[number]
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def signal(self, number: int, sent: signal.Signals) -> None:
        process = self.processes[number]
        assert process is not None
        process.send_signal(sent)

    def kill(self, number: int) -> None:
        """SIGKILL, and wait for the end."""
        process = self.processes[number]
        if process is not None:
            process.kill()
            process.wait()
            self.processes[number] = None

    def stop_all(self) -> None:
        for number in range(len(self.ids)):
            self.kill(number)
