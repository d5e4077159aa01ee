"""Model packs open when whole, and say which file is wrong when not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from oneton.biometrics.packs import assemble_buffalo_sc, open_pack
from oneton.domain.errors import SettingError


def _write(path: Path, side: int | None, dimension: int) -> None:
    """Write a graph of no use but for its shapes."""
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, dimension])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [taken], [given])
    onnx.save(helper.make_model(graph), str(path))


def _pack(folder: Path, recogniser: str = "w600k_r50.onnx") -> Path:
    folder.mkdir()
    _write(folder / "det_10g.onnx", None, 1)
    _write(folder / recogniser, 112, 256)
    _write(folder / "1k3d68.onnx", 192, 3309)
    _write(folder / "2d106det.onnx", 192, 212)
    _write(folder / "genderage.onnx", 96, 3)
    return folder


@pytest.mark.parametrize("recogniser", ["w600k_r50.onnx", "glintr100.onnx", "mine.onnx"])
def test_open_pack_finds_the_files_of_other_packs(tmp_path: Path, recogniser: str) -> None:
    folder = _pack(tmp_path / "buffalo_l", recogniser)
    files = open_pack("buffalo_l", tmp_path)
    assert files.detector == folder / "det_10g.onnx"
    assert files.recogniser == folder / recogniser
    assert files.genderage == folder / "genderage.onnx"
    assert (files.pack.name, files.pack.dimension) == ("buffalo_l", 256)
    assert open_pack(str(folder), Path("/nowhere")) == files


def test_open_pack_names_another_digest_for_another_recogniser(tmp_path: Path) -> None:
    folder = _pack(tmp_path / "buffalo_l")
    before = open_pack("buffalo_l", tmp_path).pack
    (folder / "genderage.onnx").unlink()
    assert open_pack("buffalo_l", tmp_path).pack == before
    _write(folder / "w600k_r50.onnx", 112, 512)
    assert open_pack("buffalo_l", tmp_path).pack.sha256 != before.sha256


@pytest.mark.parametrize("missing", ["det_10g.onnx", "w600k_r50.onnx"])
def test_open_pack_says_what_is_missing(tmp_path: Path, missing: str) -> None:
    folder = _pack(tmp_path / "buffalo_l")
    (folder / missing).unlink()
    with pytest.raises(SettingError, match=r"holds no .*(det_|w600k_)\*\.onnx"):
        open_pack("buffalo_l", tmp_path)


def test_open_pack_refuses_to_choose_between_two_recognisers(tmp_path: Path) -> None:
    folder = _pack(tmp_path / "buffalo_l")
    _write(folder / "w600k_mbf.onnx", 112, 512)
    with pytest.raises(SettingError, match=r"w600k_mbf\.onnx, w600k_r50\.onnx"):
        open_pack("buffalo_l", tmp_path)


def test_open_pack_says_that_a_file_is_no_onnx(tmp_path: Path) -> None:
    folder = _pack(tmp_path / "buffalo_l")
    (folder / "w600k_r50.onnx").write_bytes(b"\x01<html>not found</html>")
    with pytest.raises(SettingError, match=r"w600k_r50\.onnx"):
        open_pack("buffalo_l", tmp_path)


def test_open_pack_says_where_a_pack_should_be(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=str(tmp_path / "antelopev2")):
        open_pack("antelopev2", tmp_path)


def test_open_pack_refuses_an_altered_default_pack(tmp_path: Path) -> None:
    folder = assemble_buffalo_sc(tmp_path)
    with (folder / "det_500m.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SettingError, match=r"det_500m\.onnx is missing or altered"):
        open_pack("buffalo_sc", tmp_path)
    assemble_buffalo_sc(tmp_path)
    assert open_pack("buffalo_sc", tmp_path).pack.dimension == 512


def test_assemble_leaves_whole_files_when_several_do_it_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(assemble_buffalo_sc, [tmp_path] * 4))
    assert set(folders) == {tmp_path / "buffalo_sc"}
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["det_500m.onnx", "w600k_mbf.onnx"]
    assert open_pack("buffalo_sc", tmp_path).genderage is None
