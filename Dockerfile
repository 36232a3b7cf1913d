# The service's image. Targets: slim (default), which runs compiled models; full, for bundles that don't compile (`runtime: sklearn`).
#   docker buildx build --load -t atlas .          (needs models/bundle: `dvc repro` or `dvc pull`)
#   docker run -p 8888:5000 -e CAPSTONE_TEST=… atlas
# Behind a company's package index or TLS inspection: --secret id=pip,src=$HOME/.config/pip/pip.conf --secret id=ca,src=ca.crt;
# neither leaves a trace in the image. Reproducible: set SOURCE_DATE_EPOCH and export with rewrite-timestamp=true.

# Any image with Debian's or docker.io's Python 3.11 and venv; pin it by digest (BASE_IMAGE=…@sha256:…) where builds must repeat.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS tools
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/tools
# What decides answers and nothing else, with one owner and one mode whoever's checkout this is.
COPY --chmod=u=rwX,go=rX ml /app/ml
COPY --chmod=u=rwX,go=rX service /app/service
ARG BUNDLE=models/bundle
COPY --chmod=u=rwX,go=rX ${BUNDLE} /app/models/bundle

# Packages go into a venv without pip, compiled so that bytecode doesn't depend on file times (a read-only root can't write its own).
FROM tools AS packages-slim
COPY requirements/service.txt /tmp/requirements.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/tmp/ca.crt \
    python3 -m venv --without-pip /opt/venv \
    && if [ -s /tmp/ca.crt ]; then export PIP_CERT=/tmp/ca.crt; fi \
    && /opt/tools/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --no-deps --no-compile --only-binary :all: -r /tmp/requirements.txt \
    && /opt/venv/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/venv/lib /app

FROM packages-slim AS packages-full
COPY requirements/full.txt /tmp/full.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/tmp/ca.crt \
    if [ -s /tmp/ca.crt ]; then export PIP_CERT=/tmp/ca.crt; fi \
    && /opt/tools/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --no-deps --no-compile --only-binary :all: -r /tmp/full.txt \
    && /opt/venv/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/venv/lib

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    HOST=0.0.0.0 \
    PORT=5000 \
    MODEL_URI=/app/models/bundle
WORKDIR /app
EXPOSE 5000
# A number, so that Kubernetes can see that it isn't root. Any other works too.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/ready', timeout=2)"]
CMD ["python3", "-m", "service"]

FROM base AS full
COPY --from=packages-full /opt/venv /opt/venv
COPY --from=packages-full /app /app
ARG BUNDLE_VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Atlas prediction service" \
      org.opencontainers.image.version="${BUNDLE_VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      atlas.bundle.version="${BUNDLE_VERSION}"

FROM base AS slim
COPY --from=packages-slim /opt/venv /opt/venv
COPY --from=packages-slim /app /app
ARG BUNDLE_VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Atlas prediction service" \
      org.opencontainers.image.version="${BUNDLE_VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      atlas.bundle.version="${BUNDLE_VERSION}"
