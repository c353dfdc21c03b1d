"""cluster.yaml, cluster-aws.yaml and the scripts they run, as far as one host without Ray can tell.

tests/cluster starts a real cluster from them.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config

from edge_tune.doctor import stick
from tests.hosts import host, only

ROOT = Path(__file__).parents[1]
FILES = ("cluster.yaml", "cluster-aws.yaml")
RAY = '#!/bin/sh\n[ "$1" != start ] || { printf "%s\\n" "$@"; env; pwd; }\n'
MAKE = '#!/bin/sh\necho "make $1"\n[ "$1" != "$FAILS" ]\n'


def config(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's disk: the scripts look for their files below it instead of below /."""
    checkout = tmp_path / "home/edge_tune"
    shutil.copytree(ROOT / "cluster", checkout / "cluster")
    for script in ("devices", "set_up_node", "shell"):
        file = checkout / "cluster" / script
        file.write_text(re.sub(r"(?<=[ =])(?=/(etc|sys|tmp)/)", str(tmp_path), file.read_text()))
    for file, text in ((checkout / ".venv/bin/ray", RAY), (tmp_path / "bin/make", MAKE)):
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o755)
    (tmp_path / "home/.bashrc").write_text(f"PATH={tmp_path}/bin:$PATH\n")
    return tmp_path


def typed(root: Path, command: str, **environment: str) -> list[str]:
    """Run a command as `ray up` does, on a host whose disk is below `root`; return the lines that it prints."""
    ran = subprocess.run(
        " ".join(_with_interactive(command)),
        shell=True,
        env={"HOME": f"{root}/home", "PATH": os.defpath, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("name", FILES)
def test_config_is_what_ray_takes(name: str) -> None:
    taken = prepare_config(config(name))
    validate_config(taken)
    assert taken["cluster_name"] == config(name)["cluster_name"]
    with pytest.raises(ValidationError, match="'worker_setup_comands' was unexpected"):  # the check can fail
        validate_config(prepare_config({**config(name), "worker_setup_comands": []}))


@pytest.mark.parametrize("name", FILES)
def test_config_ships_what_there_is(name: str) -> None:
    shipped = config(name)["file_mounts"]
    assert {f"~/edge_tune/{local}": local for local in shipped.values()} == shipped
    assert [local for local in shipped.values() if not (ROOT / local).exists()] == []


def test_aws_has_a_trainer_with_a_gpu_that_ray_knows_of() -> None:
    taken = prepare_config(config("cluster-aws.yaml"))
    kinds = taken["available_node_types"]
    assert kinds["gpu_trainer"]["resources"] == {"CPU": 8, "GPU": 1}
    assert {name for name, kind in kinds.items() if "GPU" in kind["resources"]} == {"gpu_trainer"}
    assert sum(kind["max_workers"] for name, kind in kinds.items() if name != "head") == taken["max_workers"]


def test_aws_installs_make_and_venv_where_either_is_missing(root: Path) -> None:
    command = config("cluster-aws.yaml")["setup_commands"][0]
    write(root / "bin/sudo", '#!/bin/sh\necho "$@"\n')
    (root / "bin/sudo").chmod(0o755)
    write(root / "bin/python3", '#!/bin/sh\nexit "$NO_VENV"\n')
    (root / "bin/python3").chmod(0o755)
    assert typed(root, command, NO_VENV="0") == []
    assert typed(root, command, NO_VENV="1") == ["apt-get update", "apt-get install --yes make python3-venv"]


def test_configs_differ_in_machines_only() -> None:
    own, aws = (config(name) for name in FILES)
    for key in ("file_mounts", "rsync_exclude", "head_setup_commands", "cluster_synced_files"):
        assert own[key] == aws[key], key


def test_config_has_what_a_user_changes_on_top() -> None:
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    start, end = (number for number, line in enumerate(lines) if line.startswith("# ----"))
    assert set(yaml.safe_load("\n".join(lines[start:end]))) == {"provider", "auth"}


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
@pytest.mark.parametrize(
    ("files", "devices"),
    [
        ({}, 0),
        ({"etc/edge_tune_ncs": "1\n"}, 1),
        ({"etc/edge_tune_ncs": "2"}, 2),
        ({"sys/bus/usb/devices/1-1/idVendor": "8087\n"}, 0),
        ({"sys/bus/usb/devices/1-1/idVendor": "8087\n", "sys/bus/usb/devices/1-2/idVendor": "03e7\n"}, 1),
        ({"sys/bus/usb/devices/1-1/idVendor": "03e7\n", "sys/bus/usb/devices/1-2/idVendor": "03e7\n"}, 2),
        ({"sys/bus/usb/devices/1-1/idVendor": "03e7\n", "etc/edge_tune_ncs": "0\n"}, 0),
    ],
    ids=["nothing", "marker", "marker of two", "other device", "stick", "two sticks", "marker before stick"],
)
def test_start_commands_offer_the_devices_that_are_there(
    root: Path, commands: str, files: dict[str, str], devices: int
) -> None:
    for name, text in files.items():
        write(root / name, text)
    stop, start = config("cluster.yaml")[commands]
    assert typed(root, stop) == []
    said = typed(root, start, RAY_HEAD_IP="10.0.0.10")
    assert f'--resources={{"ncs": {devices}}}' in said
    assert f"--num-cpus={len(os.sched_getaffinity(0)) - devices}" in said
    assert said[-1] == f"{root}/home/edge_tune"


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
@pytest.mark.parametrize("name", FILES)
def test_start_commands_set_the_environment(root: Path, name: str, commands: str) -> None:
    said = typed(root, f"export RAY_enable_autoscaler_v2=1; {config(name)[commands][1]}", RAY_HEAD_IP="10.0.0.10")
    assert {"RAY_AUTH_MODE=token", "RAY_worker_niceness=0", "RAY_CHDIR_TO_TRIAL_DIR=0"} <= set(said)
    assert [line for line in said if line.startswith("OMP_NUM_THREADS=")] == []
    if commands == "worker_start_ray_commands":
        assert "--address=10.0.0.10:6379" in said
    else:
        assert {"--head", "--dashboard-host=127.0.0.1"} <= set(said)
        assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in said  # Ray itself finds the home
        assert f"RAY_enable_autoscaler_v2={int(name != 'cluster.yaml')}" in said


def test_set_up_node_installs_the_project(root: Path) -> None:
    (command,) = config("cluster.yaml")["setup_commands"]
    assert typed(root, command) == ["make install"]
    assert not (root / "etc").exists()


def test_set_up_node_installs_what_a_stick_needs_where_there_is_one(root: Path, tmp_path: Path) -> None:
    write(root / "etc/edge_tune_ncs", "1\n")
    write(root / "bin/udevadm", '#!/bin/sh\necho "udevadm $1"\n')
    (root / "bin/udevadm").chmod(0o755)
    write(root / "bin/sudo", '#!/bin/sh\nshift\nexec "$@"\n')
    (root / "bin/sudo").chmod(0o755)
    (command,) = config("cluster.yaml")["setup_commands"]
    installs = ["make install", "make legacy-runtime"]
    assert typed(root, command) == [*installs, "udevadm control", "udevadm trigger"]
    assert only(stick.udev_rule, host(root)).level == "ok"
    assert typed(root, command) == installs  # the rule is there


def test_set_up_node_goes_on_where_the_second_interpreter_cannot_be_made(root: Path) -> None:
    write(root / "etc/edge_tune_ncs", "1\n")
    write(root / "etc/udev/rules.d/97-edge-tune.rules", (ROOT / "cluster/97-edge-tune.rules").read_text())
    (command,) = config("cluster.yaml")["setup_commands"]
    assert typed(root, command, FAILS="legacy-runtime")[2:] == [
        "No .venv-ncs: --device MYRIAD cannot be measured here; other devices can."
    ]


def test_head_shell_joins_the_cluster_while_it_runs(root: Path) -> None:
    (shell,) = [command for command in config("cluster.yaml")["head_setup_commands"] if "cluster/shell" in command]
    for _ in range(2):
        typed(root, shell)
    assert (root / "home/.bashrc").read_text().count("cluster/shell") == 1
    ask = "echo $RAY_ADDRESS $RAY_AUTH_MODE; command -v ray"
    ray = f"{root}/home/edge_tune/.venv/bin/ray"
    assert typed(root, ask) == ["", ray]
    write(root / "tmp/ray/ray_current_cluster", "10.0.0.10:6379")
    assert typed(root, ask) == ["10.0.0.10:6379 token", ray]


@pytest.mark.parametrize("earlier", [None, "token\n"])
@pytest.mark.parametrize("name", FILES)
def test_token_is_for_its_user_alone(root: Path, name: str, earlier: str | None) -> None:
    """Ray itself writes it as the umask lets it, and whoever reads it runs code on every node."""
    token = root / "home/.ray/auth_token"
    token.parent.mkdir()
    if earlier:
        write(token, earlier)
        token.chmod(0o644)
    write(root / "home/edge_tune/.venv/bin/ray", "#!/bin/sh\necho made >~/.ray/auth_token\n")
    (root / "home/edge_tune/.venv/bin/ray").chmod(0o755)
    for command in config(name)["head_setup_commands"]:
        if "auth_token" in command:
            typed(root, f"umask 022; {command}")
    assert token.read_text() == (earlier or "made\n")
    assert token.stat().st_mode & 0o777 == 0o600
