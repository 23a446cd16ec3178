"""The machine that a world's processes believe in: its disk can fail, its wall clock can jump."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from pathlib import Path

DISKS = {"sound": b"-", "full": b"f", "read-only": b"r", "slow": b"s"}


class Machine:
    """What `machine.c`, compiled here, does to the processes that preload it.

    Attributes:
        env: for those processes.

    Args:
        directory: where the library and its control file go.
        disk: the files with this in their names are on the disk that fails.
    """

    def __init__(self, directory: Path, disk: str = "runs.db") -> None:
        library, control = directory / "machine.so", directory / "machine"
        source = Path(__file__).with_name("machine.c")
        command = ["cc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"]
        subprocess.run([*command, str(library), str(source), "-ldl"], check=True)
        control.write_bytes(b"-".ljust(16, b"\0"))
        file = os.open(control, os.O_RDWR)
        self._control = mmap.mmap(file, 16)
        os.close(file)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAULTS_MACHINE": str(control),
            "FAULTS_DISK": disk,
        }

    @property
    def disk(self) -> str:
        """The state of the disk, one of `DISKS`."""
        return next(name for name, byte in DISKS.items() if byte == self._control[:1])

    @disk.setter
    def disk(self, state: str) -> None:
        self._control[:1] = DISKS[state]

    @property
    def ahead(self) -> int:
        """How many seconds the wall clock is ahead of the real one; negative: behind."""
        seconds: int = struct.unpack("q", self._control[8:16])[0]
        return seconds

    @ahead.setter
    def ahead(self, seconds: int) -> None:
        self._control[8:16] = struct.pack("q", seconds)
