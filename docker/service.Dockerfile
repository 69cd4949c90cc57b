# The service: answers searches of a gallery over HTTP. It has no torch, runs as a fixed unprivileged user, and works on
# a read-only root file system: it writes to its two volumes only.
#
#   docker build -f docker/service.Dockerfile -t eigenlens-service:cpu .
#   docker build -f docker/service.Dockerfile -t eigenlens-service:gpu --build-arg VARIANT=gpu .
#   docker build -f docker/service.Dockerfile -t eigenlens-service:cpu-postgres --build-arg VARIANT=cpu-postgres .
#   docker build -f docker/service.Dockerfile -t eigenlens-service:cpu-qdrant --build-arg VARIANT=cpu-qdrant .
#
# To follow security updates of the base, ask `docker buildx imagetools inspect python:3.11.15-slim-bookworm` for the
# present digest, and write it here and in train.Dockerfile. `docker/try-images.sh` builds and runs both images.
ARG BASE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${BASE} AS packages
# The packages, by a name in docker/locks: FAISS for the CPU or a GPU, and a client of PostgreSQL or Qdrant where it says so.
ARG VARIANT=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY docker/locks locks/
# Left out of what is installed: tests, headers, tools that compile, ONNX Runtime's library for other languages than
# Python, and symbols for debuggers (not of libraries in *.libs: their makers moved parts of them, and strip breaks them).
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils=2.40-2 \
    && rm -rf /var/lib/apt/lists/*
RUN pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes --requirement "locks/${VARIANT}.txt" \
    && find /opt/venv/lib -depth -type d -name tests -exec rm -r {} + \
    && find /opt/venv/lib -depth -path '*/onnxruntime/*' \( -name backend -o -name datasets -o -name quantization \
        -o -name tools -o -name transformers -o -name 'libonnxruntime.so.*' \) -exec rm -r {} + \
    && find /opt/venv/lib -depth -path '*/numpy/*' \( -name distutils -o -name f2py \) -exec rm -r {} + \
    && find /opt/venv/lib -type f \( -name '*.pyi' -o -name '*.a' -o -name '*.h' \) -delete \
    && find /opt/venv/lib -type f -name '*.so' -not -path '*.libs/*' -size +400k -exec strip --strip-unneeded {} +


FROM packages AS build
COPY pyproject.toml constraints.txt LICENSE README.md ./
RUN pip install --no-cache-dir --constraint constraints.txt setuptools
COPY eigenlens eigenlens
COPY index index
COPY model model
COPY service service
# All files get one date, which their compiled forms name: the same code makes the same layers. The parts that change
# least get layers of their own.
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir wheels . \
    && pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt --no-deps --no-compile \
        --prefix /opt/code wheels/*.whl \
    && find /opt/code -exec touch --date=2000-01-01 {} + \
    && python -m compileall -q -s /opt/code -p /opt/venv /opt/code \
    && find /opt/code -exec touch --date=2000-01-01 {} + \
    && for part in model service; do \
        install -d "/opt/$part/lib/python3.11/site-packages/eigenlens" || exit 1; \
    done \
    && mv /opt/code/lib/python3.11/site-packages/eigenlens/index /opt/code/lib/python3.11/site-packages/eigenlens/model \
        /opt/model/lib/python3.11/site-packages/eigenlens/ \
    && mv /opt/code/lib/python3.11/site-packages/eigenlens/service /opt/service/lib/python3.11/site-packages/eigenlens/


FROM ${BASE} AS system
# Linux drops a signal to process 1 that has no handler yet, and Python needs a moment to set one: an init passes it on.
RUN apt-get update \
    && apt-get install -y --no-install-recommends "tini=0.19.0-1*" \
    && rm -rf /var/lib/apt/lists/*
# Nothing is installed, compiled or edited in the service. The base leaves Python's own modules uncompiled, and each start
# would compile those that it needs: that takes a second, and a health check starts every few. /links becomes what is at
# the root beside folders of the system.
WORKDIR /usr/local/lib/python3.11
RUN rm -rf ensurepip idlelib lib2to3 pydoc_data site-packages/* tkinter turtledemo \
        /usr/local/include/python3.11 /usr/local/bin/pip* /usr/local/bin/wheel /usr/local/bin/idle* \
    && python -m compileall -q /usr/local/lib/python3.11 \
    && install -d -m 1777 /links/tmp \
    && cp --no-dereference /bin /lib /lib64 /sbin /links/
# The user owns the mount points, so that new named volumes become its own. The keys are for nobody else.
RUN groupadd --gid 10001 eigenlens \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin eigenlens \
    && install -d -o 10001 -g 10001 /data/gallery \
    && install -d -o 10001 -g 10001 -m 0700 /data/keys


# Nor is anything of Debian's added, so what adds it goes too, out of dpkg's list as well; and tables of character sets for
# programs in C: the locale's is in the C library itself, and Python brings its own.
RUN dpkg --purge --force-depends --force-remove-essential apt libapt-pkg6.0 gpgv perl-base \
    && rm -r /etc/apt /usr/lib/*-linux-gnu/gconv


# The system without what was removed: over the base, it would only be hidden.
FROM scratch
COPY --from=system /links /
COPY --from=system /etc /etc
COPY --from=system /usr /usr
COPY --from=system /var /var
COPY --from=system /data /data
# ONNX Runtime's wheels send usage data to their makers, and keep some in HOME, unless they are told not to.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
COPY --from=packages /opt/venv /opt/venv
# The code is in layers of its own: a change of it does not send the packages again, nor one of the service the rest.
COPY --from=build /opt/model /opt/venv
COPY --from=build /opt/service /opt/venv
COPY --from=build /opt/code /opt/venv
COPY docker/bill_of_materials.py /opt/eigenlens/bill_of_materials.py
RUN python /opt/eigenlens/bill_of_materials.py > /opt/eigenlens/bill-of-materials.cdx.json
USER 10001:10001
WORKDIR /data
VOLUME ["/data/gallery", "/data/keys"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["eigenlens", "ready"]
ENTRYPOINT ["tini", "-s", "--", "eigenlens"]
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
