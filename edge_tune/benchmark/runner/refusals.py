"""What is refused, and how a failure is said to the user."""


class RefusalError(Exception):
    """What was asked cannot be done; the text is for the user."""


def remedy(device: str, error: Exception) -> str:
    """Return what may be done about a device that cannot be used, besides naming another."""
    if "libusb" in str(error):
        return "install libusb (Debian: apt-get install libusb-1.0-0) or "
    return "plug it in or " if "MYRIAD" in device else ""


def sentence(error: Exception, runtime: str) -> str:
    """Return the error in one line: our own words, or what a runtime says, OpenVINO below its list of source lines."""
    if isinstance(error, RefusalError):
        return str(error)
    # OpenVINO raises nothing else; ONNX Runtime's have a class for each kind.
    if type(error) not in (RuntimeError, Exception) and "onnxruntime" not in type(error).__module__:
        return "the runner failed: %r" % error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception from ")]
    return "%s says: %s" % (runtime, " ".join(told or lines)[:1000])
