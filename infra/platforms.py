"""The machines for which the locked packages exist. `make` runs this file before it installs anything."""

import os
import platform
import sys

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC = (2, 28)
"""Linux: the oldest C library for which all packages have wheels."""
MACOS = 14
"""macOS: the oldest version for which all packages have wheels."""
MACHINES = {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",)}
"""System -> its processors, as Python names them; there are no wheels for Macs with Intel processors."""
SUPPORTED = "Linux with glibc 2.28 or newer (amd64, arm64) and macOS 14 or newer (Apple silicon)"


def problem(python: str, system: str, machine: str, glibc: str, macos: str) -> "str | None":
    """Why Atlas can't be installed on this machine; None if it can.

    `python`: major and minor version; `glibc`: empty if the C library is another one; `macos`: empty on Linux.
    """
    if python not in PYTHONS:
        return (
            f"Atlas needs Python {PYTHONS[0]} to {PYTHONS[-1]}, but this is Python {python}: choose another with "
            f"make PYTHON=/path/to/python{PYTHONS[0]}"
        )
    supported = f"its packages exist for {SUPPORTED}"
    if system == "Windows":
        return f"Atlas can't be installed on Windows itself, but in WSL 2: {supported}"
    if machine not in MACHINES.get(system, ()):
        rosetta = (
            " (a Mac with Apple silicon needs a Python for arm64)" if (system, machine) == ("Darwin", "x86_64") else ""
        )
        return f"Atlas can't be installed on {system} {machine}{rosetta}: {supported}"
    if system == "Linux" and not glibc:
        return f"Atlas can't be installed on a Linux without glibc, such as Alpine: {supported}"
    if system == "Linux" and _numbers(glibc) < GLIBC:
        return f"Atlas can't be installed with glibc {glibc}: {supported}"
    if system == "Darwin" and _numbers(macos) < (MACOS,):
        return f"Atlas can't be installed on macOS {macos}: {supported}"
    return None


def _numbers(version: str) -> "tuple[int, ...]":
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _glibc() -> str:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):
        return ""
    return version if name == "glibc" else ""


def main() -> int:
    """0 if Atlas can be installed here; else 1, after printing why not."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = problem(python, platform.system(), platform.machine(), _glibc(), platform.mac_ver()[0])
    if found is not None:
        print(found, file=sys.stderr)
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
