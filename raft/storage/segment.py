"""The end of the log: the one segment file that is being written.

It knows its end, how much of it is durable, and how much space is reserved; it does not know what records mean. The
space after its end always reads as zeroes: recovery finds the end of the log by that.
"""

from pathlib import Path

from raft.storage.errors import DiskFull
from raft.storage.files import DISK_FULL_ERRNOS, File, Files
from raft.storage.record import FILE_BYTES_MAX, RecordType, encode_record

#: Space is reserved in pieces of this size ahead of the end: a sync inside it writes no metadata.
PREALLOCATE_BYTES = 4 * 1024 * 1024
#: The end of the name of a file that is not complete; recovery removes it.
TEMPORARY_SUFFIX = ".tmp"


class SegmentWriter:
    """One open segment file. Do not use it any more after any `OSError` of its methods."""

    def __init__(self, file: File, *, seed: int, end: int, ahead_bytes: int) -> None:
        """Everything up to `end` must be durable, and all after it zeroes."""
        self._file = file
        self._ahead_bytes = min(PREALLOCATE_BYTES, ahead_bytes)
        #: Size of the file; from `end` on it reads as zeroes.
        self._allocated = max(end, file.size())
        #: Of the checksums in this file.
        self.seed = seed
        #: Where the next record goes.
        self.end = end
        #: Everything before this offset is durable.
        self.durable = end

    @classmethod
    def create(
        cls, files: Files, path: Path, start: bytes, *, seed: int, ahead_bytes: int
    ) -> "SegmentWriter":
        """A segment under its name, with `start` durable in it; or nothing, if the power fails first.

        Raises:
            DiskFull: no room; nothing is left behind.
            OSError: the disk does not do as asked.
        """
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        file = None
        try:
            file = files.create(temporary)
            file.preallocate(len(start))
            file.write(0, start)
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            if file is not None:
                file.close()
                files.remove(temporary)
            raise DiskFull(str(error)) from error
        file.sync()
        files.rename(temporary, path)
        files.sync_directory(path.parent)
        return cls(file, seed=seed, end=len(start), ahead_bytes=ahead_bytes)

    def record(self, type: RecordType, body: bytes, offset: int | None = None) -> bytes:
        """A record as it must be at this offset; without `offset`, at the end."""
        at = self.end if offset is None else offset
        return encode_record(type, body, offset=at, durable=self.durable, seed=self.seed)

    def append(self, data: bytes) -> None:
        """Write at the end, not yet durable.

        Raises:
            DiskFull: nothing of it was written.
            OSError: the disk does not do as asked.
        """
        end = self.end + len(data)
        assert end <= FILE_BYTES_MAX, f"a batch of {len(data)} bytes"
        if end > self._allocated:
            self._reserve(end)
        try:
            self._file.write(self.end, data)
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            # Part of it may have been written. If that stayed, a shorter batch written over it would leave intact
            # records after its own end.
            self._file.truncate(self.end)
            self._allocated = self.end
            raise DiskFull(str(error)) from error
        self.end = end

    def sync(self) -> None:
        """Make everything up to the end durable.

        Raises:
            OSError: what the disk holds is unknown from now on; a second try may "succeed" over lost pages.
        """
        self._file.sync()
        self.durable = self.end

    def trim(self) -> None:
        """Give back the space that was reserved and not used, and make what is there durable."""
        self._file.truncate(self.end)
        self._allocated = self.end
        self.sync()

    def close(self) -> None:
        self._file.close()

    def _reserve(self, end: int) -> None:
        """Reserve space up to `end`, and some more if there is room."""
        ahead = self._ahead_bytes
        for size in (end - end % ahead + ahead, end):
            try:
                self._file.preallocate(size)
            except OSError as error:
                if error.errno not in DISK_FULL_ERRNOS:
                    raise
                if size == end:
                    raise DiskFull(str(error)) from error
            else:
                self._allocated = max(self._allocated, size)
                return
