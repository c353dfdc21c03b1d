import pytest

from refusals import RefusalError
from runtime import check_precision


@pytest.mark.parametrize(
    ("asked", "used", "capable"),
    [("f32", "f32", ["f32"]), ("f16", None, ["f16"])],
)
def test_check_precision_accepts_what_is_used_or_listed(asked: str, used: str | None, capable: list[str]) -> None:
    check_precision("MYRIAD", asked, used, capable)


def test_check_precision_refuses_what_was_read_back_differently() -> None:
    with pytest.raises(RefusalError, match=r"CPU computes in \(\['bf16', 'f32'\]\), but got 'f16'; .*use 'bf16'"):
        check_precision("CPU", "f16", "bf16", ["f32", "bf16"])


def test_check_precision_refuses_what_a_silent_device_does_not_list() -> None:
    with pytest.raises(RefusalError, match=r"MYRIAD computes in \(\['f16'\]\), but got 'f32'\."):
        check_precision("MYRIAD", "f32", None, ["f16"])
