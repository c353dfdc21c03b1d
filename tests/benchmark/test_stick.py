import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_tune.doctor import stick
from tests.hosts import NEW, OLD, STICK, host, only


@pytest.mark.parametrize(("facts", "level"), [(OLD, "ok"), (NEW, "fix")])
def test_libusb_is_missing_or_not(facts: Mapping[str, Any], level: str, tmp_path: Path) -> None:
    assert only(stick.libusb, host(tmp_path, facts=facts)).level == level


@pytest.mark.parametrize(
    ("files", "level", "says"),
    [
        ({}, "fix", "no USB bus: .* 03e7:2485 .* 03e7:f63b"),
        ({"sys/bus/usb/devices/1-1/idVendor": "1d6b\n"}, "fix", "no stick is on the bus .*: plug it in"),
        (STICK, "ok", "03e7:2485, at 1-2"),
        ({**STICK, "sys/bus/usb/devices/1-2/speed": "5000\n"}, "ok", "03e7:2485"),
        ({**STICK, "sys/bus/usb/devices/1-2/speed": "480\n"}, "warn", "480 Mbit/s; plug it into a USB 3 port"),
        ({**STICK, "sys/bus/usb/devices/1-2/idProduct": "f63b\n"}, "warn", "03e7:f63b.* has booted, .*unplug"),
    ],
)
def test_usb_tells_the_state_of_the_stick(files: Mapping[str, str], level: str, says: str, tmp_path: Path) -> None:
    finding = only(stick.usb, host(tmp_path, files))
    assert finding.level == level
    assert re.search(says, finding.says)


def test_usb_tells_of_each_stick(tmp_path: Path) -> None:
    other = {name.replace("1-2", "2-1"): content for name, content in STICK.items()}
    assert len(list(stick.usb(host(tmp_path, {**STICK, **other})))) == 2


BOTH = "".join(
    f'SUBSYSTEM=="usb", ATTRS{{idProduct}}=="{product}", ATTRS{{idVendor}}=="03e7"\n' for product in ("2485", "f63b")
)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, ("2485", "f63b")),
        ({"etc/udev/rules.d/97-myriad.rules": BOTH}, ()),
        ({"lib/udev/rules.d/80-movidius.rules": 'ATTR{idVendor}=="03E7", MODE="0666"'}, ()),
        ({"etc/udev/rules.d/97-myriad.rules": BOTH.splitlines()[0]}, ("f63b",)),
        ({"etc/udev/rules.d/97-myriad.rules": "# " + BOTH.splitlines()[0]}, ("2485", "f63b")),
    ],
)
def test_udev_rule_asks_for_what_is_missing(files: Mapping[str, str], missing: tuple[str, ...], tmp_path: Path) -> None:
    finding = only(stick.udev_rule, host(tmp_path, files))
    assert finding.level == ("fix" if missing else "ok")
    asked = tuple(product for product in ("2485", "f63b") if f'"{product}"' in finding.says)
    assert asked == missing


def test_udev_rule_that_is_advised_satisfies_the_check(tmp_path: Path) -> None:
    advised = only(stick.udev_rule, host(tmp_path)).says.split("'")[1::2]
    assert only(stick.udev_rule, host(tmp_path, {"etc/udev/rules.d/97.rules": "\n".join(advised)})).level == "ok"


def test_udev_rule_is_not_needed_by_root(tmp_path: Path) -> None:
    assert only(stick.udev_rule, host(tmp_path, user_id=0)).level == "ok"


def test_mutex_must_not_belong_to_another_user(tmp_path: Path) -> None:
    assert only(stick.mutex, host(tmp_path)).level == "ok"
    files = {"tmp/mvnc.mutex": ""}
    assert only(stick.mutex, host(tmp_path, files, user_id=os.getuid())).level == "ok"
    finding = only(stick.mutex, host(tmp_path, files, user_id=os.getuid() + 1))
    assert finding.level == "fix"
    assert f"belongs to user {os.getuid()}, not to {os.getuid() + 1}" in finding.says
