import contextlib
import functools
import http.server
import re
import socket
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from edge_tune.errors import ExperimentError
from edge_tune.networks import download
from edge_tune.networks.models import build, check_output
from edge_tune.networks.weights import load_pretrained, load_weights, read_weights

SHARED_WEIGHTS = Path(__file__).parents[1].parent / "shared" / "models" / "resnet56_cifar10_jpeg.pt"


def tiny() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 10))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# read_weights


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_read_weights_accepts_what_people_save(tmp_path, wrap, prefix):
    weights = weights_of(tiny())
    torch.save(wrap({prefix + name: value for name, value in weights.items()}), tmp_path / "tiny.pt")

    read = read_weights(str(tmp_path / "tiny.pt"))

    for model in (tiny(), nn.DataParallel(tiny()) if prefix else tiny()):
        load_weights(model, read, "here")
        assert all(
            torch.equal(value, weights[name.removeprefix("module.")]) for name, value in weights_of(model).items()
        )


def test_read_weights_follows_a_file_url(tmp_path):
    torch.save(weights_of(tiny()), tmp_path / "tiny net.pt")

    assert "0.weight" in read_weights((tmp_path / "tiny net.pt").as_uri())


@pytest.fixture
def website(tmp_path, monkeypatch):
    """The address of a folder, `tmp_path / "site"`, and a cache of its own for what is downloaded."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "site").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_read_weights_downloads_once(tmp_path, website):
    torch.save(weights_of(tiny()), tmp_path / "site" / "tiny-1.pt")

    first = read_weights(f"{website}/tiny-1.pt")
    (tmp_path / "site" / "tiny-1.pt").unlink()

    assert torch.equal(read_weights(f"{website}/tiny-1.pt")["0.weight"], first["0.weight"])


def test_read_weights_checks_the_checksum_in_the_name(tmp_path, website):
    torch.save(weights_of(tiny()), tmp_path / "site" / "tiny-0123abcd.pt")

    with pytest.raises(ExperimentError, match=r"but the download failed \(its sha256 must begin with 0123abcd, as "):
        read_weights(f"{website}/tiny-0123abcd.pt")


def test_read_weights_says_so_when_the_download_fails(website):
    with pytest.raises(ExperimentError, match=r"nothing\.pt: weights must be downloaded .* failed \(HTTP Error 404"):
        read_weights(f"{website}/nothing.pt")


def test_read_weights_says_so_when_there_is_no_file(tmp_path):
    with pytest.raises(ExperimentError, match=r"nowhere\.pt: weights must be a file or a URL, but got no such file"):
        read_weights(str(tmp_path / "nowhere.pt"))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short", b"\x80\x04K\x01."])
def test_read_weights_says_so_when_torch_did_not_write_the_file(tmp_path, content):
    file = tmp_path / "file.pt"
    file.write_bytes(content)

    with pytest.raises(
        ExperimentError, match=rf"must be a file that torch.save.* safetensors wrote, but its {len(content)} bytes ca"
    ):
        read_weights(str(file))


def test_read_weights_refuses_whole_models(tmp_path):
    torch.save(tiny(), tmp_path / "model.pt")

    with pytest.raises(ExperimentError, match=r"must hold tensors only, but got whole pickled objects, .*; save mod"):
        read_weights(str(tmp_path / "model.pt"))


def test_read_weights_takes_safetensors(tmp_path):
    weights = weights_of(tiny())
    safetensors.torch.save_file(weights, tmp_path / "tiny.safetensors")

    read = read_weights(str(tmp_path / "tiny.safetensors"))

    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that answers each connection with the bytes it is given, and then says nothing more."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "SILENCE_S", 0.2)
    answers = []
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as held:

        def answer():
            with contextlib.suppress(OSError):  # closed at the end of the test
                while True:
                    connection = held.enter_context(listening.accept()[0])
                    connection.recv(4096)
                    connection.sendall(answers[0])

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x.pt", answers
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "timed out"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc", "timed out"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\nabc",
            "weights must have at most 4.3 GB, but .* 10.0 GB",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc", "invalid literal"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", "is not allowed"),
        (b"hello\r\n", "hello"),
    ],
)
def test_read_weights_gives_up_a_server_that_does_not_serve(server, answer, problem, tmp_path):
    url, answers = server
    answers.append(answer)

    with pytest.raises(ExperimentError, match=rf"x.pt: weights must be downloaded .* failed \(.*{problem}"):
        read_weights(url)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_read_weights_says_nothing_of_a_signature(website):
    with pytest.raises(ExperimentError, match=r"^http://127\S+/nothing.pt: weights must be downloaded once") as error:
        read_weights(f"{website}/nothing.pt?X-Amz-Signature=secret")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(("content", "kind"), [({"epoch": 3}, "dict"), ([torch.zeros(1)], "list")])
def test_read_weights_says_so_when_there_is_no_state_dict(tmp_path, content, kind):
    torch.save(content, tmp_path / "other.pt")

    with pytest.raises(ExperimentError, match=rf"must hold a state_dict, .*, but got none in a {kind};"):
        read_weights(str(tmp_path / "other.pt"))


# load_weights


def test_load_weights_copies_every_value():
    source, model = tiny(), tiny()

    load_weights(model, weights_of(source), "here")

    assert all(torch.equal(model.state_dict()[name], value) for name, value in source.state_dict().items())


def test_load_weights_does_without_the_counters_of_batch_norm():
    source, model = tiny(), tiny()
    weights = weights_of(source)
    del weights["1.num_batches_tracked"]

    load_weights(model, weights, "here")

    assert torch.equal(model.state_dict()["1.running_var"], source.state_dict()["1.running_var"])
    assert torch.equal(model.state_dict()["0.weight"], source.state_dict()["0.weight"])


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "0.weight",
            torch.full((4, 3, 3, 3), float("nan")),
            "finite numbers, but 0.weight hold NaN or infinity",
        ),
        ("1.running_var", torch.full((4,), float("inf")), "finite numbers, but 1.running_var hold NaN"),
        ("3.bias", torch.full((10,), 1e300, dtype=torch.float64), "finite numbers, but 3.bias hold NaN or inf"),
        (
            "0.weight",
            torch.zeros(4, 3, 3, 3, dtype=torch.int8),
            "of the kind that the network has, but got int8 for 0.w",
        ),
        ("0.weight", torch.zeros(4, 3, 3, 3, dtype=torch.complex64), "but got complex64 for 0.weight"),
        ("3.bias", torch.zeros(10).to_sparse(), "but got float32 for 3.bias; give weights that are not quantised"),
        ("3.bias", torch.zeros(10, device="meta"), "but got float32 for 3.bias; give weights that are not"),
    ],
)
def test_load_weights_refuses_values_that_no_network_can_have(name, value, problem):
    weights = {**weights_of(tiny()), name: value}

    with pytest.raises(ExperimentError, match=rf"^here: weights must be .*{problem}"):
        load_weights(tiny(), weights, "here")


def test_load_weights_refuses_another_number_of_classes():
    with pytest.raises(
        ExperimentError, match=r"^here: .* has the shapes fc.weight \[1000, 64\] instead of \[10, 64\], fc.b"
    ):
        load_weights(build("resnet20_cifar", 10), weights_of(build("resnet20_cifar", 1000)), "here")


def test_load_weights_names_what_differs_in_one_sentence():
    weights = weights_of(tiny())
    weights["0.weight"] = torch.zeros(4, 1, 3, 3)
    weights["3.offset"] = weights.pop("3.bias")

    with pytest.raises(
        ExperimentError,
        match=re.escape(
            "here: weights must fit the network, but the file lacks 3.bias, has the unknown 3.offset, "
            "has the shapes 0.weight [4, 1, 3, 3] instead of [4, 3, 3, 3]; give weights of this network"
        ),
    ):
        load_weights(tiny(), weights, "here")


def test_load_weights_names_the_first_three_and_counts_the_rest():
    weights = weights_of(build("resnet56_cifar", 10))
    model = build("resnet20_cifar", 10)
    strays = len(weights) - len(model.state_dict())

    with pytest.raises(
        ExperimentError, match=rf"unknown layer1\.3\.conv1\.weight, (\S+), (\S+) and {strays - 3} more;"
    ):
        load_weights(model, weights, "here")


def test_load_weights_fits_the_shared_resnet56():
    if not SHARED_WEIGHTS.is_file():
        pytest.skip("needs shared/models/resnet56_cifar10_jpeg.pt beside the checkout")
    model = build("resnet56_cifar", 10)

    load_weights(model, read_weights(str(SHARED_WEIGHTS)), "shared")

    check_output(model, (3, 32, 32), 10)


# load_pretrained


def published(name, num_classes=1000):
    """The weights of a torchvision network under the names, and with the auxiliary classifiers, of its published file.

    torchvision itself builds googlenet so for its file, and has a pattern for the names in densenet's.
    """
    own = {"aux_logits": True, "transform_input": True, "init_weights": False}
    network = torchvision.models.get_model(name, num_classes=num_classes, **(own if name == "googlenet" else {})).eval()
    weights = weights_of(network)
    if name.startswith("densenet"):
        weights = {re.sub(r"(denselayer\d+\.(norm|conv))", r"\1.", key): value for key, value in weights.items()}
        weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    return network, weights


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("densenet121", [r"580 older names read as .*denselayer1.norm.1.weight as \S*denselayer1.norm1.weight\.$"]),
        ("googlenet", [r"20 tensors of aux1, aux2 left out: classifiers that only training uses"]),
        ("mnasnet0_5", []),  # it asks for the version of what it loads
        ("squeezenet1_1", []),
    ],
)
def test_load_pretrained_takes_what_torchvision_publishes(name, said):
    theirs, weights = published(name)
    lines = []
    ours = build(name, 1000).eval()

    assert load_pretrained(ours, weights, 1000, "here", lines.append) is None

    assert len(lines) == len(said)
    assert all(re.search(pattern, line) for pattern, line in zip(said, lines, strict=True))
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("resnet18", ("fc.weight", "fc.bias")),
        ("squeezenet1_1", ("classifier.1.weight", "classifier.1.bias")),  # a convolution
        ("googlenet", ("fc.weight", "fc.bias")),
    ],
)
def test_load_pretrained_keeps_all_but_the_classifier_of_other_classes(name, classifier):
    _, weights = published(name)
    lines = []
    model = build(name, 10)
    before = weights_of(model)

    pretrained = load_pretrained(model, weights, 10, "here", lines.append)

    assert pretrained.classifier == classifier
    assert lines[-1] == (
        f"weights: 1000 classes, the data has 10: a new classifier ({', '.join(classifier)}) is trained, first alone, "
        f"then with the whole network."
    )
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in classifier else weights[key]), key
    _, others = published(name)
    assert pretrained.digest != load_pretrained(model, others, 10, "here", lines.append).digest


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"0.weight": torch.zeros(10, 3, 3, 3)}, r"has the shapes 0.weight \[10, 3, 3, 3\] instead of \[4, 3, 3, 3\];"),
        ({"3.weight": torch.zeros(7, 36)}, r"has the shapes 3.weight \[7, 36\] instead of \[10, 36\];"),
        ({"3.weight": torch.zeros(7, 49), "3.bias": torch.zeros(7)}, r"has the shapes 3.weight \[7, 49\] instead of"),
        ({"aux1.weight": torch.zeros(1)}, r"has the unknown aux1.weight;"),
        ({"denselayer1.norm.1.weight": torch.zeros(1)}, r"has the unknown denselayer1.norm.1.weight;"),
    ],
)
def test_load_pretrained_drops_nothing_else(changes, problem):
    lines = []

    with pytest.raises(ExperimentError, match=rf"^here: weights must fit the network, but the file {problem}"):
        load_pretrained(tiny(), {**weights_of(tiny()), **changes}, 10, "here", lines.append)

    assert lines == []
