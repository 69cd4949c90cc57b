# Training: every command that needs torch (train, export), and build, with the sample fashion-mnist inside.
#
#   docker build -f docker/train.Dockerfile -t eigenlens-train:cpu --build-arg TORCH_INDEX_URL=... .
#   docker build -f docker/train.Dockerfile -t eigenlens-train:gpu --build-arg VARIANT=gpu .
#
# How to pin the base by its digest: see service.Dockerfile.

FROM python:3.11.15-slim-bookworm AS build
# The extra that brings FAISS: cpu or gpu.
ARG VARIANT=cpu
# A package index to take torch from, and torch alone. Empty: the default index, whose torch for x86-64 brings CUDA. That
# is what a GPU needs, and it computes on a CPU as well; an index with CPU builds saves gigabytes there, and an index of
# another CUDA version fits an older driver.
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN if [ -n "${TORCH_INDEX_URL}" ]; then \
        pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt --no-deps \
            --index-url "${TORCH_INDEX_URL}" torch; \
    fi
RUN python requirements.py "${VARIANT}" train > requirements.txt \
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
LABEL org.opencontainers.image.title="eigenlens-train" \
      org.opencontainers.image.description="Adaptive-length image retrieval: training, export and gallery building" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.15-slim-bookworm"
RUN apt-get update \
    && apt-get install -y --no-install-recommends dataset-fashion-mnist=0.0~git20200523.55506a9-1 \
    && rm -rf /var/lib/apt/lists/*
# The same user as in the service image, which reads and extends the gallery that is built here.
RUN groupadd --gid 10001 eigenlens \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin eigenlens \
    && install -d -o 10001 -g 10001 /data/training /data/gallery
COPY --from=build /opt/venv /opt/venv
COPY docker/prepare.sh /opt/eigenlens/prepare.sh
# ONNX Runtime's wheels send usage data to their makers, and keep some in HOME, unless they are told not to.
ENV PATH=/opt/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /data
VOLUME ["/data/training", "/data/gallery"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["eigenlens"]
CMD ["--help"]
