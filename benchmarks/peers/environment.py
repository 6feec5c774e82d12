"""An environment for each peer: its own Python packages, and its npm packages, apart from ours.

It is made once, under the folder that it is given, and again when the peer's requirements change.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_INSTALL_SECONDS: Final = 900.0
_TOLD_LINES: Final = 8  # of what a failed command said
_REQUIREMENTS: Final = "requirements.txt"
_NPM: Final = "package.json"


class PeerFailedError(Exception):
    """A peer could not be installed, or its run failed; the message says why."""


@dataclass(frozen=True)
class Environment:
    """Where a peer's packages are. `node_modules` is there when the peer has a package.json."""

    home: Path

    @property
    def python(self) -> Path:
        """The interpreter that sees the peer's packages and not ours."""
        return self.home / "bin" / "python"

    def variables(self) -> dict[str, str]:
        """What a process in this environment finds in `os.environ`: nothing that points at our own packages."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return kept | {"PYTHONPATH": str(_shared_code(self.home)), "PEER_NODE_MODULES": str(self.home / "node_modules")}


def install(peer: Path, home: Path) -> Environment:
    """Make the environment of the peer in folder `peer`, unless `home` holds it already.

    Raises PeerFailedError, with the end of what pip or npm said.
    """
    stamp, wanted = home / "installed.json", _requirements(peer)
    if not stamp.exists() or json.loads(stamp.read_text()) != wanted:
        shutil.rmtree(home, ignore_errors=True)
        pip = [] if (peer / _REQUIREMENTS).exists() else ["--without-pip"]
        _run([sys.executable, "-m", "venv", *pip, str(home)], f"make the Python environment of {peer.name}")
        _install_python(peer, home)
        _install_npm(peer, home)
        stamp.write_text(json.dumps(wanted))
    return Environment(home)


def _requirements(peer: Path) -> dict[str, str]:
    """What decides whether an environment is still the right one."""
    files = [peer / name for name in (_REQUIREMENTS, _NPM)]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}
    return digests | {"python": sys.version}


def _install_python(peer: Path, home: Path) -> None:
    listed = peer / _REQUIREMENTS
    if listed.exists():
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(listed)]
        _run(command, f"install the Python packages of {peer.name}")


def _install_npm(peer: Path, home: Path) -> None:
    if not (peer / _NPM).exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise PeerFailedError(f"{peer.name} needs npm, which is not on the PATH. Install Node.js, or leave it out.")
    shutil.copy(peer / _NPM, home / _NPM)
    _run([npm, "install", "--no-save", "--no-package-lock"], f"install the npm packages of {peer.name}", cwd=home)


def _shared_code(home: Path) -> Path:
    """A folder from which a peer can import `benchmarks`, and nothing else that happens to lie beside it."""
    folder = home / "shared"
    folder.mkdir(exist_ok=True)
    link = folder / "benchmarks"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(Path(__file__).resolve().parents[1], target_is_directory=True)
    return folder


def _run(command: Sequence[str], purpose: str, *, cwd: Path | None = None) -> None:
    environment: Mapping[str, str] = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerFailedError(f"Could not {purpose}: it took more than {_INSTALL_SECONDS:g} s.") from None
    if done.returncode:
        told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_TOLD_LINES:])
        raise PeerFailedError(f"Could not {purpose} (status {done.returncode}):\n{told}")
