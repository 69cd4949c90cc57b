# The service: answers searches of a gallery over HTTP. It has no torch, runs as a fixed unprivileged user, and works on
# a read-only root file system: it writes to its two volumes only.
#
#   docker build -f docker/service.Dockerfile -t eigenlens-service:cpu .
#   docker build -f docker/service.Dockerfile -t eigenlens-service:gpu --build-arg VARIANT=gpu .
#
# To follow security updates of the base, ask `docker buildx imagetools inspect python:3.11.15-slim-bookworm` for the
# present digest, and write it here and in train.Dockerfile. `docker/try-images.sh` builds and runs both images.
ARG BASE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${BASE} AS packages
# The extra that brings FAISS: cpu or gpu.
ARG VARIANT=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt docker/requirements.py ./
# Left out of what was installed: tests, ONNX Runtime's tools, and its library for other languages than Python.
RUN python requirements.py "${VARIANT}" > requirements.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt \
        --requirement requirements.txt \
    && find /opt/venv/lib -depth -type d -name tests -exec rm -r {} + \
    && find /opt/venv/lib -depth -path '*/onnxruntime/*' \
        \( -name quantization -o -name tools -o -name transformers -o -name 'libonnxruntime.so.*' \) -exec rm -r {} +


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
# The user owns the mount points, so that new named volumes become its own. The keys are for nobody else.
RUN groupadd --gid 10001 eigenlens \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin eigenlens \
    && install -d -o 10001 -g 10001 /data/gallery \
    && install -d -o 10001 -g 10001 -m 0700 /data/keys
# ONNX Runtime's wheels send usage data to their makers, and keep some in HOME, unless they are told not to.
ENV PATH=/opt/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
COPY --from=packages /opt/venv /opt/venv
# The code is in a layer of its own: a change of it does not send the packages again.
COPY --from=build /opt/code /opt/venv
COPY docker/bill_of_materials.py /opt/eigenlens/bill_of_materials.py
RUN python /opt/eigenlens/bill_of_materials.py > /opt/eigenlens/bill-of-materials.cdx.json
USER 10001:10001
WORKDIR /data
VOLUME ["/data/gallery", "/data/keys"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=3s --timeout=5s --start-period=60s --retries=3 CMD ["eigenlens", "ready"]
ENTRYPOINT ["eigenlens"]
# Everyone who can reach the container's network can reach 0.0.0.0: publish the port on 127.0.0.1 only.
CMD ["serve", "--gallery", "/data/gallery", "--host", "0.0.0.0", "--port", "8080", "--admin-key-file", "/data/keys/admin.key"]
# Last, so that another commit or date makes no layer again.
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="eigenlens-service" \
      org.opencontainers.image.description="Adaptive-length image retrieval: the search service" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.15-slim-bookworm" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
