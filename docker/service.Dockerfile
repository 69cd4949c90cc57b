# The service: answers searches of a gallery over HTTP. It has no torch, runs as a fixed unprivileged user, and works on
# a read-only root file system: it writes to its two volumes only.
#
#   docker build -f docker/service.Dockerfile -t eigenlens-service:cpu .
#   docker build -f docker/service.Dockerfile -t eigenlens-service:gpu --build-arg VARIANT=gpu .
#
# The base is pinned by its exact tag, which may still be rebuilt with security updates. To pin the bytes too, ask
# `docker buildx imagetools inspect python:3.11.15-slim-bookworm` for the digest and append it, as @sha256:..., to the
# tag in both FROM lines here and in train.Dockerfile.

FROM python:3.11.15-slim-bookworm AS build
# The extra that brings FAISS: cpu or gpu.
ARG VARIANT=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN python requirements.py "${VARIANT}" > requirements.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt \
        --requirement requirements.txt
RUN pip install --no-cache-dir --constraint constraints.txt setuptools
COPY LICENSE README.md ./
COPY eigenlens eigenlens
COPY benchmarks benchmarks
COPY index index
COPY model model
COPY service service
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir wheels . \
    && pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt --no-deps wheels/*.whl


FROM python:3.11.15-slim-bookworm
LABEL org.opencontainers.image.title="eigenlens-service" \
      org.opencontainers.image.description="Adaptive-length image retrieval: the search service" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.15-slim-bookworm"
# The user owns the mount points, so that new named volumes become its own. The keys are for nobody else.
RUN groupadd --gid 10001 eigenlens \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin eigenlens \
    && install -d -o 10001 -g 10001 /data/gallery \
    && install -d -o 10001 -g 10001 -m 0700 /data/keys
COPY --from=build /opt/venv /opt/venv
# ONNX Runtime's wheels send usage data to their makers, and keep some in HOME, unless they are told not to.
ENV PATH=/opt/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /data
VOLUME ["/data/gallery", "/data/keys"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# An empty ProxyHandler: a proxy configured for the container is not asked for the container's own address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["eigenlens"]
# Everyone who can reach the container's network can reach 0.0.0.0: publish the port on 127.0.0.1 only.
CMD ["serve", "--gallery", "/data/gallery", "--host", "0.0.0.0", "--port", "8080", "--admin-key-file", "/data/keys/admin.key"]
