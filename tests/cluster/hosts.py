"""Hosts on this machine: each with its own processes, network, name, home, /tmp and sshd, on one wire.

A host is a process tree in Linux namespaces of its own. Of this machine it sees the programs, and /etc and the homes of
earlier hosts as copies that cost nothing until they are written to (overlayfs). When its first process ends, all of it
ends: processes, network, mounts. Nothing of this machine is changed. Needs root.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOME = "/root"
SBIN = f"{os.defpath}:/usr/sbin:/sbin"
INTERPRETERS = Path.home() / ".pyenv"
NAMESPACES = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
START = """
mount --make-rprivate /
cd "$own"
mount -t tmpfs -o mode=755 tmpfs root
cd root
mkdir -p dev etc proc run/sshd sys tmp var/log var/tmp "./$home"
: >var/log/lastlog
for path in /usr /opt /bin /sbin /lib*; do
    if [ -L "$path" ]; then cp -P "$path" .; else mkdir "./$path"; mount --bind "$path" "./$path"; fi
done
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$own/etc,workdir=$own/etc-work" etc
mount -t overlay overlay -o "lowerdir=$homes,upperdir=$own/home,workdir=$own/home-work" "./$home"
mount --bind "$own/tmp" tmp
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
for path in $shown; do
    mkdir -p "./$path"
    mount --bind "$path" "./$path"
done
[ ! -d "$interpreters" ] || mount --bind "$interpreters" "./$home/.pyenv"
hostname "$name"
exec chroot . /usr/sbin/sshd -D -e -o ListenAddress="$listen" -o UsePAM=no -o PidFile=none
"""


@dataclass(frozen=True)
class Host:
    """A host that runs."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its first process, as this machine numbers it."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    @property
    def home(self) -> Path:
        """What it has written to its home: a layer that the homes of other hosts can start from."""
        return self.folder / "home"

    def path(self, path: str) -> Path:
        """Return where a file of it is seen from here; a path that does not begin with / is in its home."""
        return Path(f"/proc/{self.pid}/root{Path(HOME) / path}")

    def run(self, command: str, folder: str = "", *, timeout: float = 120) -> str:
        """Run a command in a folder of its home, as if typed there; return what it says, or raise."""
        entering = ("nsenter", f"--target={self.pid}", "--all", "--root", f"--wdns={Path(HOME) / folder}")
        shell = ("env", "-i", f"HOME={HOME}", "USER=root", f"PATH={SBIN}", "bash", "-c", f". ~/.bashrc; {command}")
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            try:
                code = subprocess.run(
                    [*entering, *shell],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                ).returncode
            finally:
                output.seek(0)
                said = output.read()
                print(f"----- {self.name}, {time.monotonic() - started:.0f} s: {command}\n{said}", flush=True)
        if code:
            raise subprocess.CalledProcessError(code, command, said)
        return said

    def end(self) -> None:
        """End all that runs on it."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


class Hosts:
    """Starts hosts, and ends them on leaving. All that they write lies below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Host] = []
        self._wired: list[Host] = []
        _make_bare(folder / "bare")

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._started:
            host.end()

    def start(self, name: str, *homes: Path, listen: str = "", shown: Sequence[Path] = ()) -> Host:
        """Start a host.

        Args:
            name: What it calls itself.
            homes: What earlier hosts have written, the upmost first, that its home starts from; else it is bare.
            listen: Keep it on this machine's network, its sshd at this address; otherwise it is on the wire.
            shown: Folders of this machine that it sees at the same place.
        """
        folder = self.folder / name
        for part in ("root", "tmp", "etc", "etc-work", "home", "home-work"):
            (folder / part).mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        (folder / "etc/hosts").write_text(f"127.0.0.1 localhost {name}\n")
        if not listen:
            (folder / "etc/resolv.conf").write_text("")  # or each look-up waits for a server out of reach
        settings = {
            "PATH": SBIN,
            "name": name,
            "own": str(folder),
            "homes": ":".join(map(str, (*homes, self.folder / "bare"))),
            "shown": " ".join(map(str, shown)),
            "interpreters": str(INTERPRETERS),
            "home": HOME,
            "listen": listen or "0.0.0.0",
        }
        network = () if listen else ("--net",)
        # Whatever ends the tests: pdeathsig ends the hosts.
        command = ("setpriv", "--pdeathsig=KILL", "unshare", *NAMESPACES, *network, "sh", "-ec", START)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=settings, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        host = Host(name, listen or f"10.77.0.{10 + len(self._wired)}", folder, process)
        self._started.append(host)
        _wait_for_sshd(process, folder / "log")
        if not listen:
            self._connect(host)
        return host

    def _connect(self, host: Host) -> None:
        """Plug a host into the wire, which is a bridge on the first one."""
        self._wired.append(host)
        hub = self._wired[0]
        _ip(host, "link set lo up")
        if host is hub:
            _ip(host, "link add eth0 type bridge")
        else:
            plug = f"to-{host.name}"[:15]
            _ip(hub, f"link add {plug} type veth peer name eth0 netns {host.pid}")
            _ip(hub, f"link set {plug} master eth0 up")
        _ip(host, f"address add {host.address}/24 dev eth0")
        _ip(host, "link set eth0 up")
        _ip(host, "route add default dev eth0")  # where there is none, Ray takes 127.0.0.1 for its address


def _make_bare(home: Path) -> None:
    """Make the home of a new host: empty, but for what lets pip find packages and Python be found."""
    home.mkdir(parents=True, mode=0o700)
    (home / ".pyenv").mkdir()
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    exports = [f"export {name}='{value}'" for name, value in pip.items()]
    (home / ".bashrc").write_text("\n".join((*exports, f"export PATH={sys.base_prefix}/bin:$PATH", "")))
    (home / ".profile").write_text(". ~/.bashrc\n")
    if (settings := Path.home() / ".config/pip").is_dir():
        shutil.copytree(settings, home / ".config/pip")


def _ip(host: Host, command: str) -> None:
    subprocess.run(["nsenter", f"--target={host.pid}", "--net", "ip", *command.split()], check=True)


def _wait_for_sshd(process: subprocess.Popen[bytes], log: Path, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while "Server listening" not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"a host must start its sshd, but got:\n{log.read_text()}")
        time.sleep(0.1)
