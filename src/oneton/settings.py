"""One frozen Struct, read from ONETON_* once, at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from oneton.domain.addresses import read_networks
from oneton.domain.errors import SettingError
from oneton.domain.sealing import split_master_keys

PREFIX = "ONETON_"
LEAST_MEMORY = 1 << 20


class MemorySize(int):
    """Bytes; written as a number of them, or with KiB, MiB, GiB or TiB."""

    @classmethod
    def parse(cls, text: str) -> MemorySize:
        """Read a size.

        Raises:
            ValueError: it is none.
        """
        for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1):
            if text.endswith(unit):
                return cls(round(float(text.removesuffix(unit)) * 1024**power))
        return cls(text)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Each field `x` is the variable `ONETON_X`.

    Attributes:
        database_url: `postgresql://...` of the app; none starts a PostgreSQL of our own.
        database_owner_url: of the role that owns the schema, for migrations; none is
            `database_url`.
        s3_endpoint: `http(s)://host:port`; none keeps images as files.
        model_pack: a name, or a folder with the pack's files.
        data_dir: the embedded server's data, images as files, model files.
        index_dir: index snapshots; processes of one machine may share it.
        index_memory: what indexes may take together, in bytes or as 512MiB or 4GiB.
        index_seal_faces: size at which a gallery's newest faces become a sealed segment.
        index_seal_after_s: age at which a quarter of that does.
        snapshot_interval_s: age at which changes of an index are written.
        snapshot_changes: number at which they are.
        snapshot_least_faces: smaller galleries are read from Postgres instead.
        snapshot_copy: snapshots go to the object store, too, and new replicas begin with them.
        cpu_threads: computations at once.
        queue_limit: computations that may wait; past it the answer is 503.
        max_image_pixels: of one picture.
        sweep_grace_s: age from which an object without a row is a leftover.
        shutdown_timeout_s: how long running requests may take after SIGTERM.
        trusted_proxies: addresses and networks, with commas, whose X-Forwarded-For is believed.
        metrics_token: what `/metrics` asks for as Bearer; none, and only this machine may ask.
        metrics_port: where `/metrics` is served, too, on an own listener without a token; none
            is nowhere else.
        otlp_endpoint: where traces go, by OTLP over HTTP; none, and there are none.
        master_key: what wraps the tenants' keys, the newest first, one a line or with commas;
            none, and images and templates are not encrypted.
        audit_searches: the audit trail has searches and matches, too.
        public_url: where clients reach this server, for links to pictures; none is where the
            request came to.
        liveness: `module:factory` of a liveness model; none, and liveness is not assessed.
        webhook_private_addresses: webhooks may go to private and loopback addresses.
        uqudo_calls_a_minute: of one key in uqudo's dialect; none is without end.
        didit_401: Didit's dialect answers 401 to a wrong key; else 403 to every key that is none.
        face_verify_decimals: Trustmatic's dialect gives scores with two decimals.
        face_verify_500_as_200: it answers 200 where it fails.
        face_verify_calls_a_minute: that a key may make of it; none, and they are not counted.
        veriflow_echo_images: VeriFlow's dialect repeats pictures; else it links to them.
        veriflow_webhook_standalone: it tells webhooks of calls that ended in their answer, too.
        veriflow_webhook_signed: it signs what it tells them.
        cypherface_calls_a_minute: that a key may make of CypherFace's dialect; likewise.
        cypherface_mismatch_200: CypherFace's dialect answers 200 to a mismatch.
        cypherface_frames_are_live: it takes frames for live when there is no liveness model.
        cypherface_upload_life_s: how long its upload links are good.
        cypherface_operator_secret: what its API key call asks for; none, and it is off.
    """

    database_url: str | None = None
    database_owner_url: str | None = None
    database_pool_size: Annotated[int, Meta(ge=2, le=200)] = 10
    s3_endpoint: str | None = None
    s3_access_key: str | None = None
    s3_secret_key: str | None = None
    s3_bucket: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = "oneton"
    s3_region: str = "us-east-1"
    model_pack: Annotated[str, Meta(min_length=1)] = "buffalo_sc"
    inference: Literal["onnxruntime", "openvino"] = "onnxruntime"
    data_dir: Path = Path(".oneton")
    index_dir: Path = Path("index_snapshots")
    index_memory: MemorySize = MemorySize(4 << 30)
    index_seal_faces: Annotated[int, Meta(ge=64, le=262_144)] = 8192
    index_seal_after_s: Annotated[float, Meta(gt=0)] = 900.0
    snapshot_interval_s: Annotated[float, Meta(gt=0)] = 300.0
    snapshot_changes: Annotated[int, Meta(ge=1)] = 20_000
    snapshot_least_faces: Annotated[int, Meta(ge=1)] = 5000
    snapshot_copy: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    cpu_threads: Annotated[int, Meta(ge=1, le=256)] = max(1, os.cpu_count() or 1)
    queue_limit: Annotated[int, Meta(ge=0)] = 128
    max_image_pixels: Annotated[int, Meta(ge=10_000, le=178_000_000)] = 50_000_000
    max_image_bytes: Annotated[int, Meta(ge=1024)] = 20 * 1024 * 1024
    sweep_grace_s: Annotated[float, Meta(gt=0)] = 900.0
    sweep_interval_s: Annotated[float, Meta(gt=0)] = 600.0
    shutdown_timeout_s: Annotated[int, Meta(ge=1)] = 20
    trusted_proxies: str | None = None
    metrics_token: Annotated[str, Meta(min_length=16)] | None = None
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    otlp_endpoint: Annotated[str, Meta(pattern=r"^https?://[^/]+")] | None = None
    master_key: Annotated[str, Meta(min_length=16)] | None = None
    audit_searches: bool = True
    public_url: Annotated[str, Meta(pattern=r"^https?://[^/]+")] | None = None
    liveness: Annotated[str, Meta(pattern=r"^[\w.]+:\w+$")] | None = None
    webhook_private_addresses: bool = False
    uqudo_calls_a_minute: Annotated[int, Meta(ge=1)] | None = None
    didit_401: bool = False
    face_verify_decimals: bool = False
    face_verify_500_as_200: bool = False
    face_verify_calls_a_minute: Annotated[int, Meta(ge=1)] | None = None
    veriflow_echo_images: bool = False
    veriflow_webhook_standalone: bool = False
    veriflow_webhook_signed: bool = False
    cypherface_calls_a_minute: Annotated[int, Meta(ge=1)] | None = None
    cypherface_mismatch_200: bool = False
    cypherface_frames_are_live: bool = False
    cypherface_upload_life_s: Annotated[int, Meta(ge=1, le=86400)] = 4800
    cypherface_operator_secret: Annotated[str, Meta(min_length=16)] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


SETTING_NAMES = tuple(PREFIX + name.upper() for name in Settings.__struct_fields__)
_NOT_OURS = ("ONETON_TEST_", "ONETON_BENCH_")
CLIENT_NAMES = ("ONETON_URL", "ONETON_KEY", "ONETON_KEY_FILE")
"""Variables of the command line's remote mode, which settings leave alone."""
_SECRETS = (
    "database_url",
    "database_owner_url",
    "s3_access_key",
    "s3_secret_key",
    "metrics_token",
    "master_key",
    "cypherface_operator_secret",
)
FILE_NAMES = tuple(f"{PREFIX}{name.upper()}_FILE" for name in _SECRETS)
"""Variables that name a file with the secret in it."""


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check the settings; an empty variable counts as not set.

    A secret may come from a file that `ONETON_X_FILE` names, without the line's end.

    Raises:
        SettingError: one line that names the variable and says what it should be.
    """
    given = {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX)
        and not name.startswith(_NOT_OURS)
        and name not in CLIENT_NAMES
        and value != ""
    }
    given |= _read_files(given)
    for name in given:
        if name not in SETTING_NAMES:
            close = get_close_matches(name, SETTING_NAMES, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingError(f"{name} is no setting{hint}")
    fields: dict[str, str] = {}
    for name, value in given.items():
        field = name.removeprefix(PREFIX).lower()
        fields[field] = value
        try:
            msgspec.convert({field: value}, Settings, strict=False, dec_hook=_decode_kind)
        except msgspec.ValidationError as error:
            reason = str(error).split(" - at ")[0]
            raise SettingError(f"{name}={_shown(name, value)}: {reason}") from error
    settings = msgspec.convert(fields, Settings, strict=False, dec_hook=_decode_kind)
    _check_together(settings)
    return settings


def _read_files(given: dict[str, str]) -> dict[str, str]:
    """Take the variables that name files out of `given`, and read the files."""
    read = {}
    for name in FILE_NAMES:
        if (path := given.pop(name, None)) is None:
            continue
        secret = name.removesuffix("_FILE")
        if secret in given:
            raise SettingError(f"{secret} and {name} are both set")
        try:
            read[secret] = Path(path).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is no text"
            raise SettingError(f"{name}={path}: {why}") from error
        if not read[secret]:
            raise SettingError(f"{name}={path}: the file is empty")
    return read


def _decode_kind(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value)).expanduser()
    if kind is MemorySize:
        try:
            size = MemorySize.parse(str(value))
        except (ValueError, OverflowError) as error:
            raise ValueError("Expected a size such as 512MiB or 4GiB") from error
        if size < LEAST_MEMORY:
            raise ValueError("Expected at least 1MiB")
        return size
    raise TypeError(kind)


def _shown(name: str, value: str) -> str:
    return "..." if name.removeprefix(PREFIX).lower() in _SECRETS else value


def _check_together(settings: Settings) -> None:
    try:
        read_networks(settings.trusted_proxies or "")
    except ValueError as error:
        raise SettingError(f"ONETON_TRUSTED_PROXIES: {error}") from error
    if settings.master_key is not None:
        try:
            split_master_keys(settings.master_key)
        except ValueError as error:
            raise SettingError(f"ONETON_MASTER_KEY: {error}") from error
    for field in ("database_url", "database_owner_url"):
        value = getattr(settings, field)
        name = PREFIX + field.upper()
        if value is not None and urlsplit(value).scheme not in ("postgres", "postgresql"):
            raise SettingError(f"{name} must begin with postgresql://")
    if settings.database_owner_url is not None and settings.database_url is None:
        raise SettingError("ONETON_DATABASE_OWNER_URL needs ONETON_DATABASE_URL")
    if settings.s3_endpoint is None:
        for field in ("s3_access_key", "s3_secret_key"):
            if getattr(settings, field) is not None:
                raise SettingError(f"{PREFIX}{field.upper()} needs ONETON_S3_ENDPOINT")
    else:
        parts = urlsplit(settings.s3_endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise SettingError("ONETON_S3_ENDPOINT must be http://host:port or https://host:port")
        if settings.s3_access_key is None or settings.s3_secret_key is None:
            raise SettingError(
                "ONETON_S3_ENDPOINT needs ONETON_S3_ACCESS_KEY and ONETON_S3_SECRET_KEY"
            )
