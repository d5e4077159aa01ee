"""`oneton models`: packs that work are added, others are refused with the reason."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from _turned_pack import DETECTOR, RECOGNISER
from onnx import TensorProto, helper

from oneton.biometrics.calibration import FILE
from oneton.biometrics.packs import PackFiles
from tests.fixtures.servers import MakePlace, Place

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    return make_place()


def names(place: Place) -> dict[str, Any]:
    return {each["registered"]["pack"]["name"]: each for each in place.json("models", "list")}


def test_a_pack_is_added_shown_verified_and_removed(
    place: Place, turned_pack: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "turned_zip.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in turned_pack.iterdir():
            archive.write(path, f"inner/{path.name}")
        archive.writestr("inner/LICENSE", "Only on Sundays.")
        archive.writestr("../../evil.sh", "never")
    refused = place.command("models", "add", str(packed), check=False)
    assert refused.returncode == 1
    assert "Only on Sundays." in refused.stdout
    assert "--accept-license" in refused.stderr
    assert "turned_zip" not in names(place)
    added = place.json("models", "add", str(packed), "--accept-license")
    assert set(added["files"]) == {DETECTOR, RECOGNISER}
    assert added["licence"] == "Only on Sundays."
    assert added["licence_accepted_by"]
    assert names(place)["turned_zip"]["here"] == "yes"
    place.command("models", "verify", "turned_zip")
    shown = place.json("models", "show", "turned_zip")
    assert shown["calibration"]["source"] == "turned"
    folder = place.folder / ".oneton/models/turned_zip"
    assert {path.name for path in folder.iterdir()} == {DETECTOR, RECOGNISER, FILE, "pack.json"}
    with (folder / RECOGNISER).open("ab") as file:
        file.write(b"!")
    broken = place.command("models", "verify", "turned_zip", check=False)
    assert (broken.returncode, RECOGNISER in broken.stderr) == (2, True)
    place.command("models", "remove", "turned_zip")
    assert "turned_zip" not in names(place)
    assert not folder.exists()


def _truncate(folder: Path) -> None:
    content = (folder / RECOGNISER).read_bytes()
    (folder / RECOGNISER).write_bytes(content[: len(content) // 2])


def _wrong_hash(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {RECOGNISER}\n")


def _no_detector(folder: Path) -> None:
    (folder / DETECTOR).unlink()


def _graph(folder: Path, side: int, output: list[int | str], shape: list[int]) -> None:
    """Put a network there that gives zeros of a shape, whatever it is shown."""
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    zeros = helper.make_tensor("zeros", TensorProto.INT64, [len(shape)], shape)
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["zeros"], ["flat"]),
            helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0),
            helper.make_node("Add", ["flat", "least"], ["y"]),
        ],
        "g",
        [taken],
        [given],
        [zeros],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / RECOGNISER))


def _maps(folder: Path) -> None:
    _graph(folder, 112, [1, 512, 7, 7], [1, 512, 7, 7])


def _other_side(folder: Path) -> None:
    _graph(folder, 160, [1, 512], [1, 512])


def _another_length(folder: Path) -> None:
    _graph(folder, 112, [1, "d"], [1, 512])


def _other_calibration(folder: Path) -> None:
    _graph(folder, 112, [1, 512], [1, 512])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_truncate, f"{RECOGNISER} is not a readable ONNX file"),
        (_wrong_hash, f"{RECOGNISER} is altered: SHA256SUMS"),
        (_no_detector, "holds no detector"),
        (_maps, "tensor of 4 dimensions, not one vector"),
        (_other_side, "takes pictures of 160 pixels, and 112 are expected"),
        (_another_length, "does not say the dimension"),
        (_other_calibration, "belongs to another recogniser"),
    ],
)
def test_a_wrong_pack_is_refused_with_the_reason(
    place: Place, turned_pack: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(turned_pack, folder)
    spoil(folder)
    before = names(place)
    refused = place.command("models", "add", str(folder), "--accept-license", check=False)
    assert refused.returncode == 2
    assert reason in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert names(place) == before
    models = place.folder / ".oneton/models"
    assert [path.name for path in models.iterdir() if path.name not in before] == []


def test_a_recogniser_that_comes_alone_says_how_it_is_fed(
    place: Place, pack_files: PackFiles, tmp_path: Path
) -> None:
    """As the default one, but fed with pixels as they are."""
    model = onnx.load(str(pack_files.recogniser))
    (tmp_path / "plain.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "plain.toml").write_text('version = "2"\n[preprocess]\nmean = 0\nscale = 1\n')
    place.command("models", "list")
    added = place.json("models", "add", str(tmp_path / "plain.onnx"), "--detector-of", "buffalo_sc")
    assert (added["pack"]["name"], added["version"]) == ("plain", "2")
    kept = json.loads((place.folder / ".oneton/models/plain/pack.json").read_text())
    assert (kept["preprocess"]["mean"], kept["preprocess"]["scale"]) == (0, 1)
    assert added["pack"]["sha256"] != pack_files.pack.sha256
    (tmp_path / "plain.toml").write_text("[preprocess]\nscael = 1\n")
    wrong = place.command(
        "models", "add", str(tmp_path / "plain.onnx"), "--detector-of", "buffalo_sc", check=False
    )
    assert (wrong.returncode, "scael" in wrong.stderr) == (2, True)


def test_what_cannot_be_downloaded_is_said(place: Place) -> None:
    missing = place.command("models", "add", "antelopev2", "--accept-license", check=False)
    assert missing.returncode in (2, 4)
    assert len(missing.stderr.splitlines()) == 1


def test_two_galleries_of_a_tenant_have_two_packs(
    place: Place, turned_pack: Path, people: dict[str, bytes], tmp_path: Path
) -> None:
    place.command("models", "add", str(turned_pack), "--name", "second", "--accept-license")
    place.command("tenant", "create", "two")
    place.command("gallery", "create", "other", "--pack", "second", "--target-fpir", "0.01")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, photo in people.items():
        (photos / f"{name}.jpg").write_bytes(photo)
    ids = {}
    for gallery in ("default", "other"):
        report = place.json("import", str(photos), "--gallery", gallery, "--always")
        ids[gallery] = report["enrolled_as"]
        assert len(ids[gallery]) == len(people)
    for gallery in ("default", "other"):
        for name in list(people)[:3]:
            found = place.json("search", str(photos / f"{name}.jpg"), "--gallery", gallery)
            assert found["candidates"][0]["face_id"] == ids[gallery][f"{name}.jpg"]
            assert found["match"]
    listed = {each["gallery"]["gallery_id"]: each["pack"] for each in place.json("gallery", "list")}
    assert listed == {"default": "buffalo_sc", "other": "second"}
    shown = place.json("gallery", "show", "other")
    assert shown["threshold"] == pytest.approx(30, abs=1)
    assert shown["fpir"] == pytest.approx(0.01, rel=0.05)


def test_a_calibration_of_too_few_people_is_refused(
    place: Place, people: dict[str, bytes], tmp_path: Path
) -> None:
    nobody = place.command("models", "calibrate", "buffalo_sc", str(tmp_path), check=False)
    assert (nobody.returncode, "one folder a person" in nobody.stderr) == (2, True)
    for name, photo in people.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(photo)
    (tmp_path / "ada" / "2.jpg").write_bytes(b"no picture")
    few = place.command("models", "calibrate", "buffalo_sc", str(tmp_path), check=False)
    assert (few.returncode, "450 people" in few.stderr) == (2, True)
    assert not (place.folder / ".oneton/models/buffalo_sc" / FILE).exists()
    shown = place.json("models", "show", "buffalo_sc")
    assert shown["calibration"]["people"] > 2000
