"""compose.yaml and the Dockerfile ask for nothing that the code does not know."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml
from click import Group

import oneton.cli
from oneton.biometrics.packs import DEFAULT_PACK, assemble_buffalo_sc
from oneton.edge import health
from oneton.records.database import APP_ROLE
from oneton.settings import SETTING_NAMES, Settings, read_settings

ROOT = Path(__file__).parents[2]
FILLED_IN = {
    "POSTGRES_OWNER_PASSWORD": "owner-secret",
    "POSTGRES_APP_PASSWORD": "app-secret",
    "MINIO_ROOT_USER": "minio-user",
    "MINIO_ROOT_PASSWORD": "minio-secret",
}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}")


class Instruction(msgspec.Struct, frozen=True):
    """A line of the Dockerfile, `RUN` and the like apart from the rest."""

    name: str
    text: str

    def words(self) -> list[str]:
        """The words of an exec form, or of a plain list of them."""
        if self.text.startswith("["):
            return msgspec.json.decode(self.text, type=list[str])
        return self.text.split()


@pytest.fixture
def compose() -> dict[str, Any]:
    """compose.yaml with its variables filled in, `$$` for `$` included."""
    text = VARIABLE.sub(
        lambda found: FILLED_IN.get(found[1], found[3] if found[2] == "-" else ""),
        (ROOT / "compose.yaml").read_text(),
    )
    content: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return content


@pytest.fixture
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture
def dockerfile() -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


@pytest.fixture
def final_stage(dockerfile: list[Instruction]) -> list[Instruction]:
    last = max(number for number, one in enumerate(dockerfile) if one.name == "FROM")
    return dockerfile[last:]


@pytest.fixture
def image_environment(final_stage: list[Instruction]) -> dict[str, str]:
    pairs = (word.split("=", 1) for one in final_stage if one.name == "ENV" for word in one.words())
    return {name: value for name, value in pairs}  # noqa: C416  dict() takes no generator of lists


@pytest.fixture
def settings(services: dict[str, dict[str, Any]], image_environment: dict[str, str]) -> Settings:
    """What `oneton serve` reads in its container."""
    return read_settings(image_environment | services["api"]["environment"])


def only(instructions: list[Instruction], name: str) -> Instruction:
    (found,) = (one for one in instructions if one.name == name)
    return found


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def targets(service: dict[str, Any]) -> dict[str, str]:
    """Volume by the folder it is mounted on."""
    volumes = (
        (one["source"], one["target"]) if isinstance(one, dict) else one.split(":")
        for one in service.get("volumes", ())
    )
    return {target: source for source, target in volumes}


def script(words: list[str]) -> str:
    """The Python of a health check, which must compile."""
    assert words[:2] == ["python", "-c"]
    compile(words[2], "healthcheck", "exec")
    return words[2]


def test_every_setting_named_is_one_the_code_accepts() -> None:
    for name in ("compose.yaml", "Dockerfile", ".env.example"):
        named = set(re.findall(r"\bONETON_[A-Z0-9_]+", (ROOT / name).read_text()))
        assert named <= set(SETTING_NAMES), name


def test_example_names_every_variable_and_holds_no_secret() -> None:
    used = {found[1] for found in VARIABLE.finditer((ROOT / "compose.yaml").read_text())}
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )

    assert set(example) == used
    assert {name for name, value in example.items() if not value} == set(FILLED_IN)


def test_credentials_have_no_default() -> None:
    uses = VARIABLE.finditer((ROOT / "compose.yaml").read_text())

    for found in uses:
        if found[1] in FILLED_IN:
            assert found[2] == "?", found[0]
            assert ".env.example" in found[3], found[0]


def test_settings_are_accepted_together(settings: Settings) -> None:
    assert settings.database_url is not None
    assert settings.database_owner_url is not None
    assert settings.s3_endpoint is not None


def test_database_urls_match_the_server(
    settings: Settings, services: dict[str, dict[str, Any]]
) -> None:
    server = services["postgres"]["environment"]
    app, owner = urlsplit(settings.database_url or ""), urlsplit(settings.database_owner_url or "")

    assert (app.hostname, app.port) == (owner.hostname, owner.port) == ("postgres", 5432)
    assert app.path == owner.path == f"/{server['POSTGRES_DB']}"
    assert (app.username, app.password) == (APP_ROLE, server["APP_PASSWORD"])
    assert (owner.username, owner.password) == (
        server["POSTGRES_USER"],
        server["POSTGRES_PASSWORD"],
    )


def test_server_gives_the_app_its_role_without_power(compose: dict[str, Any]) -> None:
    (mounted,) = compose["services"]["postgres"]["configs"]
    content = compose["configs"][mounted["source"]]["content"]

    assert mounted["target"].startswith("/docker-entrypoint-initdb.d/")
    assert mounted["target"].endswith(".sh")
    assert f"create role {APP_ROLE} login nosuperuser" in content
    assert "nobypassrls" in content


def test_object_store_matches_the_server(
    settings: Settings, services: dict[str, dict[str, Any]]
) -> None:
    minio = services["minio"]
    url = urlsplit(settings.s3_endpoint or "")

    assert url.hostname == "minio"
    assert f":{url.port}" == minio["command"][minio["command"].index("--address") + 1]
    assert f":{url.port}/" in minio["healthcheck"]["test"][1]
    assert settings.s3_access_key == minio["environment"]["MINIO_ROOT_USER"]
    assert settings.s3_secret_key == minio["environment"]["MINIO_ROOT_PASSWORD"]
    assert settings.s3_region == minio["environment"]["MINIO_REGION"]


def test_only_the_api_is_published_on_this_machine(
    settings: Settings, services: dict[str, dict[str, Any]], compose: dict[str, Any]
) -> None:
    assert [name for name, one in services.items() if "ports" in one] == ["api"]
    assert services["api"]["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert compose["networks"]["back"]["internal"] is True
    assert services["postgres"]["networks"] == services["minio"]["networks"] == ["back"]


def test_port_is_the_code_default_everywhere(
    settings: Settings, final_stage: list[Instruction]
) -> None:
    assert settings.port == Settings().port
    assert only(final_stage, "EXPOSE").text == str(settings.port)


def test_api_listens_beyond_its_container(settings: Settings) -> None:
    assert settings.host == "0.0.0.0"


def test_worker_has_what_the_api_has(services: dict[str, dict[str, Any]]) -> None:
    api, worker = services["api"], services["worker"]
    assert worker["command"] == ["worker"]
    for same in ("image", "environment", "volumes", "user", "read_only", "cap_drop"):
        assert worker[same] == api[same], same
    assert worker["networks"] == ["back"]


def test_image_reports_to_nobody(image_environment: dict[str, str]) -> None:
    assert image_environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_command_is_one_the_cli_has(
    final_stage: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    assert only(final_stage, "ENTRYPOINT").text.startswith("[")  # Exec form: SIGTERM arrives.
    program, *before = only(final_stage, "ENTRYPOINT").words()

    assert program == "oneton"
    assert isinstance(oneton.cli.main, Group)
    for command in (only(final_stage, "CMD").words(), services["api"]["command"]):
        assert (before + command)[0] in oneton.cli.main.commands


def test_health_checks_ask_paths_the_app_has(
    final_stage: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    alive = script(
        Instruction("CMD", only(final_stage, "HEALTHCHECK").text.split("CMD ")[1]).words()
    )
    ready = script(services["api"]["healthcheck"]["test"][1:])

    (livez,), (readyz,) = health.livez.paths, health.readyz.paths
    assert f"'GET', '{livez}'" in alive
    assert f"'GET', '{readyz}'" in ready
    assert "ONETON_PORT" in alive
    assert "ONETON_PORT" in ready


def test_every_lasting_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert ("healthcheck" in service) == (service["restart"] != "no"), name
    assert services["api"]["depends_on"] == {
        name: {"condition": "service_healthy"} for name in ("postgres", "minio")
    }


def test_nothing_that_lasts_runs_as_root(
    final_stage: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    user = only(final_stage, "USER").text

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert services["api"]["user"] == user
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        if service["restart"] != "no":
            assert service["user"].split(":")[0] not in {"0", "root"}, name


def test_minio_owns_its_volume(services: dict[str, dict[str, Any]]) -> None:
    (mount,) = services["minio"]["volumes"]

    assert services["images_owner"]["entrypoint"] == [
        "chown",
        services["minio"]["user"],
        mount["target"],
    ]
    assert targets(services["images_owner"]) == targets(services["minio"])
    assert mount["volume"] == {"nocopy": True}
    assert services["minio"]["depends_on"] == {
        "images_owner": {"condition": "service_completed_successfully"}
    }


def test_every_folder_written_to_is_a_volume(
    settings: Settings, final_stage: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    written = {str(settings.data_dir), str(settings.index_dir)}
    made = " ".join(one.text for one in final_stage if one.name == "RUN")

    assert set(targets(services["api"])) == written
    assert set(only(final_stage, "VOLUME").words()) == written
    assert all(folder in made for folder in written)
    assert services["api"]["read_only"] is True
    assert services["api"]["tmpfs"] == ["/tmp"]


def test_volumes_are_declared_and_outlive_containers(compose: dict[str, Any]) -> None:
    used = {source for one in compose["services"].values() for source in targets(one).values()}

    assert used == set(compose["volumes"])
    # The image of version 18 keeps its data in a folder below this one.
    assert "/var/lib/postgresql" in targets(compose["services"]["postgres"])


def test_stopping_waits_longer_than_the_code_does(
    settings: Settings, services: dict[str, dict[str, Any]]
) -> None:
    assert seconds(services["api"]["stop_grace_period"]) > settings.shutdown_timeout_s
    assert services["api"]["init"] is True


def test_images_are_pinned(
    dockerfile: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    bases = [one.text.split()[0] for one in dockerfile if one.name == "FROM"]

    for image in [*bases, *(one["image"] for one in services.values())]:
        assert re.search(r":(?!latest)[\w.-]+$", image), image
    assert len(set(bases)) == 1  # The environment is copied from one stage to the other.


def test_image_is_built_from_the_lock_with_hashes(dockerfile: list[Instruction]) -> None:
    installs = [one.text for one in dockerfile if one.name == "RUN" and " install " in one.text]
    packages = [text for text in installs if "--requirements" in text]

    assert len(packages) == 1
    assert "--require-hashes" in packages[0]
    assert "--constraints requirements.lock" in packages[0]
    for text in installs:
        assert (
            text in packages
            or "--no-deps" in text
            or re.search(r"uv==[\d.]+$", text)
            or ("install --directory" in text)
        )


def test_image_copies_only_what_is_there(dockerfile: list[Instruction]) -> None:
    for one in dockerfile:
        if one.name == "COPY" and "--from" not in one.text:
            *sources, _ = one.words()
            for source in sources:
                assert list(ROOT.glob(source)) or source.endswith("*"), source


def test_default_pack_is_assembled_where_the_settings_look(
    settings: Settings, dockerfile: list[Instruction]
) -> None:
    (text,) = (one.text for one in dockerfile if assemble_buffalo_sc.__name__ in one.text)
    _, option, program = json.loads(text)
    folder = PurePosixPath(settings.model_pack)

    compile(program, "Dockerfile", "exec")
    assert option == "-c"
    assert f"from {assemble_buffalo_sc.__module__} import" in program
    assert f"Path('{folder.parent}')" in program
    assert folder.name == DEFAULT_PACK


def test_compose_itself_accepts_the_file() -> None:
    docker = shutil.which("docker")
    asked = docker and subprocess.run(
        [docker, "compose", "version"], capture_output=True, check=False
    )
    if not docker or not asked or asked.returncode != 0:
        pytest.skip("no docker client with the compose plugin")

    answer = subprocess.run(
        [docker, "compose", "--file", str(ROOT / "compose.yaml"), "config", "--quiet"],
        env=os.environ | FILLED_IN,
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
