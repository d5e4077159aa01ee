"""The default model pack on real faces: found, told apart, turned upright."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from _photos import variations
from numpy.typing import NDArray

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.embed import Embedder
from oneton.biometrics.onnx_network import Callers
from oneton.biometrics.packs import PackFiles
from oneton.biometrics.quality import check
from oneton.domain.errors import LowQualityError, NoFaceError
from oneton.domain.model import QualityFloor
from oneton.domain.stages import collected_stages

pytestmark = pytest.mark.model
_FMR_1E5 = 0.332  # cosine; source: the design's table for buffalo_sc
_LFW_PEOPLE = 100


def _pixels(photo: bytes) -> NDArray[np.uint8]:
    decoded = cv2.imdecode(np.frombuffer(photo, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8, copy=False)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def _in_large_photo(photo: bytes, side: int) -> bytes:
    """Put a 250-pixel photo, so shrunk that its face is about `side` wide, in 12 megapixels."""
    shrink = side / 115
    small = cv2.resize(_pixels(photo), None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    canvas = np.full((3000, 4000, 3), 120, dtype=np.uint8)
    canvas[1200 : 1200 + small.shape[0], 1700 : 1700 + small.shape[1]] = small
    return _jpeg(canvas)


def test_people_are_told_apart(analyser: Analyser, people: dict[str, bytes]) -> None:
    embeddings = np.stack([analyser.analyse(photo).embedding for photo in people.values()])
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    cosines = embeddings @ embeddings.T - 2 * np.eye(len(people))
    assert cosines.max() < _FMR_1E5


def test_variations_are_the_same_person(analyser: Analyser, people: dict[str, bytes]) -> None:
    for number, photo in enumerate(people.values()):
        own = analyser.analyse(photo).embedding
        for other in variations(photo, 4, seed=number):
            assert own @ analyser.analyse(other).embedding > 0.7


def test_variations_are_the_same_for_a_seed(people: dict[str, bytes]) -> None:
    photo = people["ada"]
    assert variations(photo, 3, seed=1) == variations(photo, 3, seed=1)
    assert variations(photo, 3, seed=1) != variations(photo, 3, seed=2)


def test_analysis_is_in_pixels_of_the_original(
    analyser: Analyser, people: dict[str, bytes]
) -> None:
    small = analyser.analyse(people["cas"])
    large = analyser.analyse(
        _jpeg(cv2.resize(_pixels(people["cas"]), (4000, 4000)).astype(np.uint8))
    )
    assert (large.width, large.height) == (4000, 4000)
    np.testing.assert_allclose(np.array(large.faces[0].box) / 16, small.faces[0].box, atol=8)
    assert small.embedding @ large.embedding > 0.9


@pytest.mark.parametrize("side", [40, 120])
def test_a_small_face_in_a_large_photo_is_found_and_known(
    analyser: Analyser, people: dict[str, bytes], side: int
) -> None:
    photo = people["gus"]
    found = analyser.analyse(_in_large_photo(photo, side))
    assert found.faces[0].quality.size_px == pytest.approx(side, rel=0.25)
    assert found.embedding @ analyser.analyse(photo).embedding > 0.7


def test_a_face_that_fills_the_picture_is_found(
    analyser: Analyser, people: dict[str, bytes]
) -> None:
    for photo in people.values():
        left, top, right, bottom = (int(edge) for edge in analyser.analyse(photo).faces[0].box)
        cut = _pixels(photo)[top:bottom, left:right]
        large = cv2.resize(cut, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
        for close in (cut, large):
            assert analyser.analyse(_jpeg(close.astype(np.uint8))).faces


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotate_turns_a_photo_upright(
    analyser: Analyser, people: dict[str, bytes], clockwise: int
) -> None:
    turned = np.rot90(_pixels(people["dan"])[20:, :], clockwise // 90)
    found = analyser.analyse(_jpeg(np.ascontiguousarray(turned)), rotate=True)
    assert found.rotation == clockwise
    assert (found.width, found.height) == (250, 230)
    assert found.embedding @ analyser.analyse(people["dan"]).embedding > 0.9


def test_rotate_turns_real_photos_upright(analyser: Analyser, turned_photos: Path) -> None:
    upright = analyser.analyse((turned_photos / "rot_0.jpg").read_bytes())
    for path in sorted(turned_photos.glob("rot_*.jpg")):
        found = analyser.analyse(path.read_bytes(), rotate=True)
        assert found.embedding @ upright.embedding > 0.9
        assert (found.width, found.height) == (upright.width, upright.height)


def test_attributes_are_plausible(analyser: Analyser, people: dict[str, bytes]) -> None:
    expected = {"ada": "female", "fay": "female", "cas": "male", "gus": "male", "jon": "male"}
    for name, gender in expected.items():
        face = analyser.analyse(people[name], attributes=True).faces[0]
        assert face.attributes is not None
        assert face.attributes.gender == gender
        assert 0.5 <= face.attributes.gender_confidence <= 1
        assert 18 <= face.attributes.age <= 50
    assert analyser.analyse(people["ada"]).faces[0].attributes is None


def test_a_floor_refuses_a_blurred_face(analyser: Analyser, people: dict[str, bytes]) -> None:
    floor = QualityFloor(size_px=60, sharpness=50, exposure=0.5)
    check(analyser.analyse(people["eve"]).faces[0].quality, floor)
    blurred = cv2.GaussianBlur(_pixels(people["eve"]), (0, 0), 4).astype(np.uint8)
    with pytest.raises(LowQualityError) as caught:
        check(analyser.analyse(_jpeg(blurred)).faces[0].quality, floor)
    assert caught.value.measure == "sharpness"


@pytest.mark.parametrize("shape", [(250, 250), (700, 900), (1, 1), (3, 3000)])
def test_a_picture_without_a_face_is_refused(analyser: Analyser, shape: tuple[int, int]) -> None:
    blank = np.full((*shape, 3), 99, dtype=np.uint8)
    for rotate in (False, True):
        with pytest.raises(NoFaceError):
            analyser.analyse(_jpeg(blank), rotate=rotate)


def test_timings_name_the_stages(analyser: Analyser, people: dict[str, bytes]) -> None:
    with collected_stages() as timings:
        analyser.analyse(people["ada"])
    assert set(timings) == {"decode", "detect", "embed"}
    assert all(spent > 0 for spent in timings.values())


def test_callers_at_once_get_what_each_gets_alone(
    analyser: Analyser, people: dict[str, bytes]
) -> None:
    photos = list(people.values()) * 4
    alone = [analyser.analyse(photo).embedding for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        together = [found.embedding for found in pool.map(analyser.analyse, photos)]
    cosines = np.einsum("nd,nd->n", np.stack(alone), np.stack(together))
    assert cosines.min() > 0.99999


def test_openvino_agrees_with_onnx_runtime(
    pack_files: PackFiles, analyser: Analyser, people: dict[str, bytes]
) -> None:
    pytest.importorskip("openvino")
    other = Analyser(pack_files, runtime="openvino")
    for photo in people.values():
        assert analyser.analyse(photo).embedding @ other.analyse(photo).embedding > 0.99999


def test_rewritten_graph_agrees_with_the_original(pack_files: PackFiles) -> None:
    import onnxruntime as ort  # noqa: PLC0415  only here is the original graph run

    original = ort.InferenceSession(str(pack_files.recogniser), providers=["CPUExecutionProvider"])
    chips = np.random.default_rng(2).integers(0, 255, (5, 112, 112, 3), dtype=np.uint8)
    embedder = Embedder.load(pack_files.recogniser, Callers(), threads=1)
    for chip in chips:
        planes = (chip[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 127.5
        raw = original.run(None, {"input.1": planes})[0][0]
        assert embedder.embed(chip) @ raw / np.linalg.norm(raw) > 0.99999


def test_lfw_people_are_found_at_rank_one(analyser: Analyser, lfw: Path) -> None:
    folders = (path for path in sorted(lfw.iterdir()) if (path / f"{path.name}_0002.jpg").exists())
    people = [sorted(path.glob("*.jpg"))[:2] for path in islice(folders, _LFW_PEOPLE)]
    enrolled, probes = (
        np.stack([analyser.analyse(photos[i].read_bytes()).embedding for photos in people])
        for i in (0, 1)
    )
    best = (probes @ enrolled.T).argmax(axis=1)
    assert (best == np.arange(len(people))).mean() >= 0.97
