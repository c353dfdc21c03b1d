"""What the doctor looks at when the device is a Neural Compute Stick: libusb, the bus, rights, the mutex."""

from collections.abc import Iterator
from pathlib import Path

from edge_tune.doctor.checks import Finding, Host

VENDOR = "03e7"
BEFORE_BOOT, AFTER_BOOT = "2485", "f63b"
RULE = 'SUBSYSTEM=="usb", ATTRS{{idVendor}}=="03e7", ATTRS{{idProduct}}=="{}", MODE="0666"'


def libusb(host: Host) -> Iterator[Finding]:
    """Say whether the stick's plugin can load libusb."""
    if "python" not in host.facts:
        return
    if host.facts["libusb"]:
        yield Finding("ok", "libusb", "libusb-1.0.so.0 loads.")
    else:
        advice = "apt-get install libusb-1.0-0 (Debian, Ubuntu), or the package of your system that has libusb 1.0"
        yield Finding("fix", "libusb", f"libusb-1.0.so.0 is missing, which the stick's plugin needs: {advice}.")


def usb(host: Host) -> Iterator[Finding]:
    """Say whether a stick is on the bus, in which state and at what speed."""
    bus = host.root / "sys/bus/usb/devices"
    if not bus.is_dir():
        yield Finding(
            "fix",
            "USB",
            f"this host has no USB bus: in a virtual machine or container, pass the stick through with both of its "
            f"ids, {VENDOR}:{BEFORE_BOOT} and, once it has booted, {VENDOR}:{AFTER_BOOT}.",
        )
        return
    sticks = [folder for folder in sorted(bus.iterdir()) if host.read(f"{folder}/idVendor") == VENDOR]
    if not sticks:
        yield Finding(
            "fix",
            "USB",
            f"no stick is on the bus ({VENDOR}:{BEFORE_BOOT}, or {VENDOR}:{AFTER_BOOT} once booted): plug it in; to "
            f"a virtual machine pass both ids through.",
        )
    for stick in sticks:
        yield _stick(host, stick)


def udev_rule(host: Host) -> Iterator[Finding]:
    """Say whether this user may open the stick, before and after it boots."""
    if host.user_id == 0:
        yield Finding("ok", "udev rule", "root needs none.")
        return
    folders = ("etc/udev/rules.d", "run/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d")
    files = [file for folder in folders for file in sorted((host.root / folder).glob("*.rules"))]
    lines = [line.lower() for file in files for line in (host.read(str(file)) or "").splitlines()]
    rules = [line for line in lines if VENDOR in line and not line.lstrip().startswith("#")]
    missing = [
        product
        for product in (BEFORE_BOOT, AFTER_BOOT)
        if not any(product in rule or "idproduct" not in rule for rule in rules)
    ]
    if not missing:
        yield Finding("ok", "udev rule", f"there is one for {VENDOR}:{BEFORE_BOOT} and {VENDOR}:{AFTER_BOOT}.")
        return
    text = " and ".join(f"'{RULE.format(product)}'" for product in missing)
    yield Finding(
        "fix",
        "udev rule",
        f"this user may not open the stick: write {text} to /etc/udev/rules.d/97-edge-tune.rules, then "
        f"`udevadm control --reload-rules && udevadm trigger`, and plug the stick in again.",
    )


def mutex(host: Host) -> Iterator[Finding]:
    """Say whom the file belongs to by which the plugin keeps other processes out."""
    file = host.root / "tmp/mvnc.mutex"
    if not file.exists():
        yield Finding("ok", "mutex", "no other user has left /tmp/mvnc.mutex.")
    elif (owner := file.stat().st_uid) == host.user_id:
        yield Finding("ok", "mutex", "/tmp/mvnc.mutex belongs to this user.")
    else:
        yield Finding(
            "fix",
            "mutex",
            f"/tmp/mvnc.mutex belongs to user {owner}, not to {host.user_id}, and the plugin would end the process: "
            f"let that user end what uses the stick, then `sudo rm /tmp/mvnc.mutex`.",
        )


def _stick(host: Host, folder: Path) -> Finding:
    product, speed = host.read(f"{folder}/idProduct"), host.read(f"{folder}/speed")
    name = f"a stick, {VENDOR}:{product}, at {folder.name}"
    if product == AFTER_BOOT:
        advice = "if none is running, one was killed: unplug the stick and plug it in again"
        return Finding("warn", "USB", f"{name}, has booted, so a process should be using it; {advice}.")
    if speed is not None and float(speed) < 5000:
        return Finding("warn", "USB", f"{name}, runs at {speed} Mbit/s; plug it into a USB 3 port.")
    return Finding("ok", "USB", f"{name}.")
