# Training: every command that needs torch (train, fit, export), and build, with the sample fashion-mnist inside.
#
#   docker build -f docker/train.Dockerfile -t eigenlens-train:cpu .
#   docker build -f docker/train.Dockerfile -t eigenlens-train:gpu --build-arg VARIANT=gpu .
#
# How the base is pinned, why packages and code are layers of their own, and what tini is for: see service.Dockerfile.
ARG BASE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${BASE} AS packages
# The extra that brings FAISS: cpu or gpu.
ARG VARIANT=cpu
# A package index to take torch from, and torch alone. Empty: for the variant cpu that of torch's builds without CUDA,
# which save gigabytes; for gpu the default index, whose torch brings CUDA. An index of another CUDA version fits an
# older driver.
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN if [ -z "${TORCH_INDEX_URL}" ] && [ "${VARIANT}" = cpu ]; then \
        TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu; \
    fi \
    && if [ -n "${TORCH_INDEX_URL}" ]; then \
        pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt --no-deps \
            --index-url "${TORCH_INDEX_URL}" torch; \
    fi
RUN python requirements.py "${VARIANT}" train pretrained > requirements.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt \
        --requirement requirements.txt \
    && find /opt/venv/lib -depth -type d \( -name tests -o -path '*/onnx/backend/test' \) -exec rm -r {} +


FROM packages AS build
RUN pip install --no-cache-dir --constraint constraints.txt setuptools
COPY LICENSE README.md ./
COPY eigenlens eigenlens
COPY index index
COPY model model
COPY service service
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir wheels . \
    && pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt --no-deps \
        --prefix /opt/code wheels/*.whl


FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends dataset-fashion-mnist=0.0~git20200523.55506a9-1 "tini=0.19.0-1*" \
    && rm -rf /var/lib/apt/lists/*
# The base leaves Python's own modules uncompiled, and each start would compile those that it needs.
RUN python -m compileall -q -x 'site-packages|idlelib|lib2to3|tkinter|turtledemo' /usr/local/lib/python3.11
# The same user as in the service image, which reads and extends the gallery that is built here.
RUN groupadd --gid 10001 eigenlens \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin eigenlens \
    && install -d -o 10001 -g 10001 /data/training /data/gallery
# ONNX Runtime's wheels send usage data to their makers, and keep some in HOME, unless they are told not to.
ENV PATH=/opt/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
COPY --from=packages /opt/venv /opt/venv
COPY --from=build /opt/code /opt/venv
COPY docker/prepare.sh /opt/eigenlens/prepare.sh
COPY docker/bill_of_materials.py /opt/eigenlens/bill_of_materials.py
RUN python /opt/eigenlens/bill_of_materials.py > /opt/eigenlens/bill-of-materials.cdx.json
USER 10001:10001
WORKDIR /data
VOLUME ["/data/training", "/data/gallery"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "-s", "--", "eigenlens"]
CMD ["--help"]
# Last, so that another commit or date makes no layer again.
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="eigenlens-train" \
      org.opencontainers.image.description="Adaptive-length image retrieval: training, export and gallery building" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.15-slim-bookworm" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
