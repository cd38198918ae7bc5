"""Weights of networks: torchvision's from the cache, and state dicts from files."""

from __future__ import annotations

import email.message
import io
import os
import pickle
import socket
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from retrieval.errors import ModelError, UsageError
from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec, build_backbone, fingerprint
from tests.fakes import OneWeight

ONE_WEIGHT = "tests.fakes:one_weight"
RESNET18 = "resnet18-f37072fd.pth"
GOOGLENET = "googlenet-1378be20.pth"
UNSAFE = (
    "it is damaged, or holds more than tensors. Fetch it again, or save the weights anew, "
    "with safetensors or with torch.save(model.state_dict(), FILE)."
)
ANOTHER = "These weights are of another network; name the right `backbone`."


def mark(name, weights):
    """The fingerprint of a network that is built anew."""
    spec = BackboneSpec(name=name, weights=str(weights))
    return fingerprint(spec, build_backbone(spec), Preprocessing())


def failure(name, weights, kind=ModelError):
    with pytest.raises(kind) as caught:
        mark(name, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def conv_state():
    """Weights of OneWeight other than those that it begins with."""
    torch.manual_seed(77)
    return OneWeight().state_dict()


@pytest.fixture
def conv_mark(conv_state):
    network = build_backbone(BackboneSpec(name=ONE_WEIGHT, weights="none"))
    network.network.load_state_dict(conv_state)
    return fingerprint(BackboneSpec(name=ONE_WEIGHT), network, Preprocessing())


@pytest.fixture(scope="module")
def resnet18_state():
    torch.manual_seed(78)
    return torchvision.models.resnet18().state_dict()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torchvision's cache, empty, on a machine without network."""

    def refuse(connection):
        raise OSError("no network in tests")

    monkeypatch.setattr("http.client.HTTPSConnection.connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    folder = tmp_path / "torch-home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_imagenet_weights_come_from_the_cache_of_torchvision(cache, tmp_path, resnet18_state):
    torch.save(resnet18_state, cache / RESNET18)
    torch.save(resnet18_state, tmp_path / "same.pth")
    assert mark("resnet18", "imagenet") == mark("resnet18", tmp_path / "same.pth")
    assert mark("resnet18", "imagenet") != mark("resnet18", "none")


def test_googlenet_s_imagenet_file_has_more_heads_and_is_loaded(cache):
    torch.manual_seed(79)
    whole = torchvision.models.GoogLeNet(aux_logits=True, transform_input=True, init_weights=True)
    state = whole.state_dict()
    assert any(name.startswith("aux1.") for name in state)
    torch.save(state, cache / GOOGLENET)
    loaded = build_backbone(BackboneSpec(name="googlenet", weights="imagenet")).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize(("name", "file"), [("resnet18", RESNET18), ("googlenet", GOOGLENET)])
def test_imagenet_weights_that_cannot_be_had_are_named_with_their_address(
    cache, capsys, name, file
):
    assert failure(name, "imagenet") == (
        f"`weights` imagenet: {cache / file} is missing and cannot be downloaded (<urlopen error "
        f"no network in tests>). Put https://download.pytorch.org/models/{file} there, or use "
        f"`weights` FILE or none."
    )
    assert capsys.readouterr().out == ""  # which belongs to the report
    assert list(cache.iterdir()) == []


def test_a_download_of_other_bytes_is_refused_and_not_kept(cache, monkeypatch, capsys):
    class Answer(io.BytesIO):
        def info(self):
            return email.message.Message()

    monkeypatch.setattr("torch.hub.urlopen", lambda request: Answer(b"other bytes"))
    assert failure("resnet18", "imagenet").startswith(
        f"`weights` imagenet: {cache / RESNET18} is missing and cannot be downloaded "
        f'(invalid hash value (expected "f37072fd", got "'
    )
    assert capsys.readouterr().out == ""
    assert list(cache.iterdir()) == []


def test_a_cached_file_that_runs_code_is_refused_and_does_not_run(cache, tmp_path):
    torch.save({"fc.weight": Code(tmp_path / "ran")}, cache / RESNET18)
    assert failure("resnet18", "imagenet") == (
        f"{cache / RESNET18}: cannot be loaded safely (UnpicklingError): {UNSAFE}"
    )
    assert not (tmp_path / "ran").exists()


def test_imagenet_weights_of_a_network_of_one_s_own_are_not_known():
    assert failure(ONE_WEIGHT, "imagenet", UsageError) == (
        f"`weights` imagenet: not known for {ONE_WEIGHT}. Use `weights` none to keep what the "
        f"function returns, or name a file."
    )


def several_devices(state):
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        several_devices,
        lambda state: {"state_dict": several_devices(state)},
        lambda state: {name: tensor.double() for name, tensor in state.items()},
        lambda state: {name: torch.nn.Parameter(tensor) for name, tensor in state.items()},
    ],
    ids=["plain", "state_dict", "model", "DDP", "state_dict of DDP", "double", "parameters"],
)
@pytest.mark.parametrize("is_new", [True, False], ids=["zip", "legacy"])
def test_a_pickled_state_dict_is_loaded(tmp_path, conv_state, conv_mark, wrap, is_new):
    file = tmp_path / "weights"  # its name says nothing
    torch.save(wrap(conv_state), file, _use_new_zipfile_serialization=is_new)
    assert mark(ONE_WEIGHT, file) == conv_mark


@pytest.mark.parametrize("wrap", [dict, several_devices])
def test_a_safetensors_file_is_loaded(tmp_path, conv_state, conv_mark, wrap):
    safetensors.torch.save_file(wrap(conv_state), str(tmp_path / "w.pth"), {"format": "pt"})
    assert mark(ONE_WEIGHT, tmp_path / "w.pth") == conv_mark


class Wrapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.module = OneWeight()

    def forward(self, images):
        return self.module(images)


def test_a_network_whose_own_layers_are_called_module_is_loaded(tmp_path):
    torch.manual_seed(80)
    state = Wrapped().state_dict()
    assert "module.conv.weight" in state
    torch.save(state, tmp_path / "w.pth")
    name = f"{__name__}:Wrapped"
    loaded = build_backbone(BackboneSpec(name=name, weights=str(tmp_path / "w.pth")))
    assert torch.equal(loaded.network.module.conv.weight, state["module.conv.weight"])


def test_a_fingerprint_is_the_same_from_a_seed_and_from_a_file(tmp_path):
    state = build_backbone(BackboneSpec(weights="none", seed=4)).state_dict()
    torch.save(state, tmp_path / "w.pth")
    spec = BackboneSpec(weights="none", seed=4)
    from_seed = fingerprint(spec, build_backbone(spec), Preprocessing())
    assert mark("resnet18", tmp_path / "w.pth") == from_seed


def test_a_head_of_any_size_and_missing_counters_do_not_matter(tmp_path, resnet18_state):
    torch.save(resnet18_state, tmp_path / "plain.pth")
    other = {n: t for n, t in resnet18_state.items() if not n.endswith("num_batches_tracked")}
    other |= {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    torch.save(other, tmp_path / "other.pth")
    assert mark("resnet18", tmp_path / "other.pth") == mark("resnet18", tmp_path / "plain.pth")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"conv.bias": None}, "lacks conv.bias."),
        ({"conv.bias": None, "conv.weight": None}, "lacks conv.weight, conv.bias."),
        ({"extra": (1,)}, "has unknown extra."),
        (
            {"a": (1,), "b": (), "c": (2, 2), "d": (1,), "e": (1,)},
            "has unknown a, b, c and 2 more.",
        ),
        (
            {"conv.weight": (5, 3, 4, 4), "conv.bias": (1, 5)},
            "has other sizes: conv.weight (5, 3, 4, 4) instead of (5, 3, 8, 8), "
            "conv.bias (1, 5) instead of (5,).",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, conv_state, change, complaint):
    state = dict(conv_state)
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(shape)
    file = tmp_path / "w.pth"
    torch.save(dict(sorted(state.items(), key=lambda item: item[0] not in conv_state)), file)
    assert failure(ONE_WEIGHT, file) == f"{file}: {complaint} {ANOTHER}"


@pytest.mark.parametrize("save", [torch.save, lambda it, file: file.write_bytes(pickle.dumps(it))])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, save):
    file, ran = tmp_path / "w.pth", tmp_path / "ran"
    save({"conv.weight": Code(ran)}, file)
    assert failure(ONE_WEIGHT, file).startswith(f"{file}: cannot be loaded safely (")
    assert not ran.exists()
    torch.load(file, weights_only=False) if save is torch.save else pickle.loads(file.read_bytes())
    assert ran.exists()  # so it would have run


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_that_ends_early_is_refused(tmp_path, conv_state, kind):
    whole, file = tmp_path / "whole", tmp_path / "cut"
    if kind == "safetensors":
        safetensors.torch.save_file(conv_state, str(whole))
    else:
        torch.save(conv_state, whole, _use_new_zipfile_serialization=kind == "zip")
    data = whole.read_bytes()
    for size in (0, 1, 9, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        message = failure(ONE_WEIGHT, file)
        assert message.startswith(f"{file}: cannot be loaded safely (")
        assert message.endswith(f"): {UNSAFE}")


def begun(prefix):
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


def within(*keys):
    def wrap(state):
        for key in reversed(keys):
            state = {key: state, "epoch": 3, "optimizer": {"lr": 0.1}}
        return state

    return wrap


def averaged(state):
    return {"n_averaged": torch.tensor(5), **several_devices(state)}


def inside(state):
    """As FSDP and torch.compile name parts of a network."""
    return {name.replace("conv.", "conv._orig_mod."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        begun("_orig_mod."),
        begun("module._orig_mod."),
        begun("_orig_mod.module."),
        begun("model."),
        begun("net.backbone.encoder."),
        begun("conv."),
        begun("module.module."),
        within("model_state_dict"),
        within("state_dict", "model"),
        within("model", "state_dict"),
        within("ema"),
        within("module"),
        averaged,
        inside,
        lambda state: within("state_dict")(begun("model._orig_mod.")(state)),
        lambda state: within("model_state_dict")(begun("module.")(averaged(state))),
        lambda state: begun("_orig_mod.")(averaged(state)),
        lambda state: {**begun("model.")(state), "model.fc.weight": torch.zeros(2, 5)},
    ],
)
def test_what_scripts_and_wrappers_put_around_a_network_is_taken_off(
    tmp_path, conv_state, conv_mark, wrap
):
    state, file = wrap(conv_state), tmp_path / "w"
    torch.save(state, file)
    assert mark(ONE_WEIGHT, file) == conv_mark
    if all(isinstance(value, torch.Tensor) for value in state.values()):
        plain = {name: tensor.clone() for name, tensor in state.items()}
        safetensors.torch.save_file(plain, str(file))
        assert mark(ONE_WEIGHT, file) == conv_mark


def test_what_does_not_fit_below_a_prefix_is_named_with_it(tmp_path, conv_state):
    file = tmp_path / "w"
    state = begun("module._orig_mod.")(conv_state)
    del state["module._orig_mod.conv.bias"]
    torch.save(state, file)
    assert failure(ONE_WEIGHT, file) == (
        f"{file}: lacks conv.bias (its names begin with 'module.'). {ANOTHER}"
    )
    torch.save({"encoder.a.weight": torch.ones(1), "encoder.b": torch.ones(1)}, file)
    assert "(its names begin with 'encoder.')" in failure(ONE_WEIGHT, file)
    torch.save({**begun("model.")(conv_state), **begun("ema_model.")(conv_state)}, file)
    assert "has unknown ema_model.conv" in failure(ONE_WEIGHT, file)
    torch.save({**begun("model.")(conv_state), "conv.bias": conv_state["conv.bias"]}, file)
    assert "has unknown conv.bias twice" in failure(ONE_WEIGHT, file)
    torch.save({}, file)
    assert "lacks conv.weight" in failure(ONE_WEIGHT, file)


def test_a_dict_that_holds_itself_is_refused(tmp_path):
    state = {}
    state["state_dict"] = state
    torch.save(state, tmp_path / "w")
    assert "holds a dict, but no state dict" in failure(ONE_WEIGHT, tmp_path / "w")


@pytest.mark.parametrize("kind", ["sparse", "complex", "meta"])
def test_tensors_of_another_kind_are_refused(tmp_path, conv_state, kind):
    weight = conv_state["conv.weight"]
    make = {
        "sparse": weight.to_sparse,
        "complex": lambda: weight.to(torch.complex64),
        "meta": lambda: weight.to("meta"),
    }[kind]
    torch.save({**conv_state, "conv.weight": make()}, tmp_path / "w")
    message = failure(ONE_WEIGHT, tmp_path / "w")
    assert "a dense tensor of real numbers is needed" in message or "loaded safely" in message


def test_a_zip_that_inflates_is_refused_before_it_does(tmp_path):
    file = tmp_path / "w.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(2**26))
    assert failure(ONE_WEIGHT, file).startswith(f"{file}: cannot be loaded safely (its parts are c")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "link", "sparse", "header", "zeros"])
def test_what_is_no_file_of_weights_is_refused_before_it_is_read(tmp_path, kind):
    file = tmp_path / "w"
    if kind in ("device", "link"):
        file.symlink_to("/dev/zero" if kind == "device" else file)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(file))
    else:
        head = {
            "sparse": b"\x80\x02",
            "header": (2**40).to_bytes(8, "little") + b"{",
            "zeros": b"",
        }[kind]
        file.write_bytes(head)
        os.truncate(file, 2**36 if kind == "sparse" else 2**33)
    failure(ONE_WEIGHT, file)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ([1.0], "list"),
        (torch.ones(3), "Tensor"),
        ({"epoch": 3}, "dict"),
        ({7: torch.ones(1)}, "dict"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content, kind):
    file = tmp_path / "w.pth"
    torch.save(content, file)
    assert failure(ONE_WEIGHT, file) == (
        f"{file}: holds a {kind}, but no state dict of names and tensors. "
        f"Save one with torch.save(model.state_dict(), FILE)."
    )


@pytest.mark.parametrize(
    ("name", "why"), [("missing.pth", "No such file or directory"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, why):
    assert failure("resnet18", tmp_path / name) == (
        f"`weights` {tmp_path / name}: cannot be read ({why}). "
        f"Use imagenet, none, or a .safetensors or .pth file."
    )
