"""Settings: right ones are read, wrong ones are one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneton.domain.errors import SettingError
from oneton.settings import SETTING_NAMES, read_settings

S3 = {"ONETON_S3_ACCESS_KEY": "a", "ONETON_S3_SECRET_KEY": "hunter2"}


def test_no_settings_are_the_embedded_default() -> None:
    settings = read_settings({"PATH": "/bin", "ONETON_PORT": ""})
    assert settings.database_url is None
    assert settings.s3_endpoint is None
    assert (settings.port, settings.model_pack) == (8080, "buffalo_sc")
    assert settings.index_dir == Path("index_snapshots")


def test_every_setting_is_read_from_its_variable() -> None:
    given = {"ONETON_PORT": "0", "ONETON_SWEEP_GRACE_S": "1.5", "ONETON_DATA_DIR": "x/y", **S3}
    settings = read_settings({**given, "ONETON_S3_ENDPOINT": "https://store.example:9000"})
    assert (settings.port, settings.sweep_grace_s) == (0, 1.5)
    assert settings.data_dir == Path("x/y")
    assert settings.s3_secret_key == "hunter2"
    assert set(given) < set(SETTING_NAMES)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ONETON_PORT": "http"}, "ONETON_PORT=http: Expected `int`"),
        ({"ONETON_PORT": "70000"}, "ONETON_PORT=70000"),
        ({"ONETON_PROT": "80"}, "did you mean ONETON_PORT?"),
        ({"ONETON_INFERENCE": "magic"}, "ONETON_INFERENCE=magic"),
        ({"ONETON_DATABASE_URL": "mysql://root:hunter2@db"}, "must begin with postgresql://"),
        ({"ONETON_DATABASE_OWNER_URL": "postgresql://o@db/x"}, "needs ONETON_DATABASE_URL"),
        ({"ONETON_S3_ENDPOINT": "minio:9000", **S3}, "must be http://host:port"),
        ({"ONETON_S3_ENDPOINT": "http://minio:9000"}, "needs ONETON_S3_ACCESS_KEY"),
        (S3, "needs ONETON_S3_ENDPOINT"),
        ({"ONETON_S3_BUCKET": "No Such Bucket"}, "ONETON_S3_BUCKET"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_no_secret(
    given: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingError) as raised:
        read_settings(given)
    line = str(raised.value)
    assert says in line
    assert "\n" not in line
    assert "hunter2" not in line


def test_a_secret_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("postgresql://app:hunter2@db/oneton\n")

    settings = read_settings({"ONETON_DATABASE_URL_FILE": str(path)})

    assert settings.database_url == "postgresql://app:hunter2@db/oneton"


@pytest.mark.parametrize(
    ("content", "beside", "says"),
    [
        (None, {}, "No such file"),
        ("", {}, "the file is empty"),
        ("postgresql://hunter2@db/x", {"ONETON_DATABASE_URL": "postgresql://db/x"}, "both set"),
        ("mysql://hunter2@db", {}, "must begin with postgresql://"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, content: str | None, beside: dict[str, str], says: str
) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_text(content)

    with pytest.raises(SettingError) as raised:
        read_settings({"ONETON_DATABASE_URL_FILE": str(path), **beside})

    assert says in str(raised.value)
    assert "hunter2" not in str(raised.value)
