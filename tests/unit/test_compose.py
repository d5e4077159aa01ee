"""compose.yaml and the Dockerfile ask for nothing that the code does not know."""

from __future__ import annotations

import json
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
from cryptography.fernet import Fernet

import oneton.cli
from oneton.biometrics.packs import DEFAULT_PACK, assemble_buffalo_sc
from oneton.edge import health
from oneton.records.database import APP_ROLE
from oneton.settings import FILE_NAMES, SETTING_NAMES, MemorySize, Settings, read_settings

ROOT = Path(__file__).parents[2]
SECRETS = PurePosixPath("/run/secrets")
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
        lambda found: found[3] if found[2] == "-" else "",
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


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What scripts/secrets makes, by file."""
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run([ROOT / "scripts/secrets", folder], check=True, capture_output=True)
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


def accepted(
    service: dict[str, Any], image_environment: dict[str, str], secrets: dict[str, str]
) -> Settings:
    """What oneton reads in a service's container, its files of secrets read."""
    environment = dict(image_environment)
    for name, value in service["environment"].items():
        if name.endswith("_FILE"):
            path = PurePosixPath(value)
            assert path.parent == SECRETS, name
            assert path.name in service["secrets"], name
            environment[name.removesuffix("_FILE")] = secrets[path.name]
        else:
            environment[name] = value
    return read_settings(environment)


@pytest.fixture
def settings(
    services: dict[str, dict[str, Any]],
    image_environment: dict[str, str],
    secrets: dict[str, str],
) -> Settings:
    """What `oneton serve` reads in its container."""
    return accepted(services["api"], image_environment, secrets)


@pytest.fixture
def owner(
    services: dict[str, dict[str, Any]],
    image_environment: dict[str, str],
    secrets: dict[str, str],
) -> Settings:
    """What `oneton migrate` reads in its container."""
    return accepted(services["migrate"], image_environment, secrets)


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
        assert named <= {*SETTING_NAMES, *FILE_NAMES}, name


def test_example_names_every_variable_with_its_default() -> None:
    used = {found[1]: found[3] for found in VARIABLE.finditer((ROOT / "compose.yaml").read_text())}
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )

    assert example == used


def test_secrets_are_files_that_the_script_makes(
    compose: dict[str, Any], services: dict[str, dict[str, Any]], secrets: dict[str, str]
) -> None:
    assert {name: one["file"] for name, one in compose["secrets"].items()} == {
        name: f"./secrets/{name}" for name in secrets
    }
    for name, service in services.items():
        given = str({**service, "secrets": None})
        assert not any(secret in given for secret in secrets.values()), name
        for path in re.findall(r"/run/secrets/(\w+)", given):
            assert path in service["secrets"], name


def test_secrets_that_are_there_are_kept(tmp_path: Path) -> None:
    (tmp_path / "master_key").write_text("mine\n")

    made = subprocess.run(
        [ROOT / "scripts/secrets", tmp_path], check=True, capture_output=True, text=True
    )

    assert (tmp_path / "master_key").read_text() == "mine\n"
    assert "kept  master_key" in made.stdout
    assert tmp_path.stat().st_mode & 0o077 == 0


def test_scripts_of_containers_name_secrets_that_they_have(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    for name, service in services.items():
        for config in service.get("configs", ()):
            content = compose["configs"][config["source"]]["content"]
            named = re.findall(r"secret (\w+)\)|/run/secrets/(\w+)", content)
            for one in (first or second for first, second in named):
                assert one in service["secrets"], (name, one)


def test_settings_are_accepted_together(settings: Settings) -> None:
    assert settings.database_url is not None
    assert settings.s3_endpoint is not None
    assert settings.master_key is not None
    Fernet(settings.master_key)


def test_only_the_migration_has_the_owners_rights(
    settings: Settings, owner: Settings, services: dict[str, dict[str, Any]]
) -> None:
    assert settings.database_owner_url is None
    assert owner.database_owner_url is not None
    assert [name for name, one in services.items() if "database_owner_url" in str(one)] == [
        "migrate"
    ]
    assert services["api"]["depends_on"]["migrate"] == {
        "condition": "service_completed_successfully"
    }


def test_database_urls_match_the_server(
    owner: Settings, services: dict[str, dict[str, Any]], secrets: dict[str, str]
) -> None:
    server = services["postgres"]["environment"]
    app, own = urlsplit(owner.database_url or ""), urlsplit(owner.database_owner_url or "")

    assert (app.hostname, app.port) == (own.hostname, own.port) == ("postgres", 5432)
    assert app.path == own.path == f"/{server['POSTGRES_DB']}"
    assert (app.username, app.password) == (APP_ROLE, secrets["postgres_app_password"])
    assert (own.username, own.password) == (
        server["POSTGRES_USER"],
        secrets["postgres_owner_password"],
    )
    assert server["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_owner_password"


def test_pools_fit_the_server(settings: Settings, services: dict[str, dict[str, Any]]) -> None:
    command = services["postgres"]["command"]
    (most,) = (int(word.split("=")[1]) for word in command if word.startswith("max_connections="))
    processes = services["api"]["deploy"]["replicas"] + 1

    # Each process also has connections for the news, locks and its queue.
    assert processes * (settings.database_pool_size + 10) < most


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
    assert settings.s3_region == minio["environment"]["MINIO_REGION"]


def test_object_stores_key_is_for_the_bucket_only(
    settings: Settings,
    compose: dict[str, Any],
    services: dict[str, dict[str, Any]],
    secrets: dict[str, str],
) -> None:
    bucket = services["bucket"]
    script = compose["configs"]["make_bucket"]["content"]
    policy = json.loads(compose["configs"]["bucket_policy"]["content"])

    assert (settings.s3_access_key, settings.s3_secret_key) == (
        secrets["s3_access_key"],
        secrets["s3_secret_key"],
    )
    assert 3 <= len(secrets["s3_access_key"]) <= 20  # MinIO's limits, in characters.
    assert 8 <= len(secrets["s3_secret_key"]) <= 40
    assert bucket["environment"]["BUCKET"] == settings.s3_bucket
    assert bucket["environment"]["REGION"] == settings.s3_region
    assert f"{settings.s3_endpoint} " in script
    assert 'admin user add local "$(secret s3_access_key)" "$(secret s3_secret_key)"' in script
    assert {one for each in policy["Statement"] for one in each["Resource"]} == {
        f"arn:aws:s3:::{settings.s3_bucket}",
        f"arn:aws:s3:::{settings.s3_bucket}/*",
    }
    assert services["api"]["depends_on"]["bucket"] == {
        "condition": "service_completed_successfully"
    }


def test_only_the_proxy_is_published_on_this_machine(
    services: dict[str, dict[str, Any]], compose: dict[str, Any]
) -> None:
    assert [name for name, one in services.items() if "ports" in one] == ["proxy"]
    assert services["proxy"]["ports"] == ["127.0.0.1:8080:8080"]
    assert compose["networks"]["front"]["internal"] is True
    assert compose["networks"]["back"]["internal"] is True
    for name in ("postgres", "minio", "bucket", "migrate"):
        assert services[name]["networks"] == ["back"], name


def test_proxy_asks_two_replicas_that_believe_it(
    settings: Settings, services: dict[str, dict[str, Any]], compose: dict[str, Any]
) -> None:
    (mounted,) = services["proxy"]["configs"]
    caddyfile = compose["configs"][mounted["source"]]["content"]
    (network,) = compose["networks"]["front"]["ipam"]["config"]

    assert mounted["target"] in services["proxy"]["command"]
    assert services["api"]["deploy"]["replicas"] == 2
    assert "name api\n" in caddyfile
    assert f"port {settings.port}\n" in caddyfile
    assert settings.trusted_proxies == network["subnet"]
    assert "front" in services["proxy"]["networks"]
    assert "front" in services["api"]["networks"]


def test_proxy_takes_what_the_api_takes_and_shows_no_metrics(
    settings: Settings, compose: dict[str, Any]
) -> None:
    caddyfile = compose["configs"]["proxy"]["content"]
    (most,) = re.findall(r"max_size (\d+)MB", caddyfile)

    # Two pictures in Base64.
    assert int(most) * 1_000_000 > 2 * settings.max_image_bytes * 4 / 3
    assert "@inside path /metrics" in caddyfile
    assert settings.metrics_token is not None


def test_worker_reaches_webhooks(services: dict[str, dict[str, Any]]) -> None:
    assert services["worker"]["networks"] == ["outside", "back"]


def test_every_service_has_limits(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}, name


def test_index_memory_leaves_room_in_the_container(
    settings: Settings, services: dict[str, dict[str, Any]]
) -> None:
    limit = services["api"]["deploy"]["resources"]["limits"]["memory"]

    assert 2 * settings.index_memory <= MemorySize.parse(limit.replace("g", "GiB"))


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
    for same in ("image", "environment", "secrets", "volumes", "user", "read_only", "cap_drop"):
        assert worker[same] == api[same], same


def test_image_reports_to_nobody(image_environment: dict[str, str]) -> None:
    assert image_environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_command_is_one_the_cli_has(
    final_stage: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    assert only(final_stage, "ENTRYPOINT").text.startswith("[")  # Exec form: SIGTERM arrives.
    program, *before = only(final_stage, "ENTRYPOINT").words()

    assert program == "oneton"
    assert isinstance(oneton.cli.main, Group)
    commands = [one["command"] for one in services.values() if one["image"] == "oneton:local"]
    for command in (only(final_stage, "CMD").words(), *commands):
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
    assert "'/readyz'" in services["api"]["healthcheck"]["test"][-1]
    assert "/metrics" in services["worker"]["healthcheck"]["test"][-1]


def test_nothing_that_lasts_runs_as_root(
    final_stage: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    user = only(final_stage, "USER").text

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert services["api"]["user"] == user
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
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
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
