# pyproject.toml, constraints.txt, the sources and, for demo and models, models/ -> images, one for each target:
# server-cpu, server-gpu, trainer, demo (server-cpu with models/ in it), models (models/ alone, for an image volume).
# Each has two layers of limner's: packages, which change with constraints.txt, and limner itself, under a megabyte.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# Not in any image. Where packages come from is asked for by build arguments, which stay in these stages.
FROM ${BASE} AS pip
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/limner
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./

# Of limner itself these install its name and its command, so that a change of the code leaves the packages alone.
FROM pip AS packages
RUN mkdir -p clients/playground clients/python/limner_client export limner server training
FROM packages AS packages-cpu
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
ARG EXTRAS=serve,cpu
RUN /opt/pip/bin/pip --python /opt/limner/bin/python install -c constraints.txt ".[${EXTRAS}]" \
  && find /opt/limner -type d -name tests -prune -exec rm -r {} +
FROM packages AS packages-gpu
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
RUN /opt/pip/bin/pip --python /opt/limner/bin/python install -c constraints.txt '.[serve,gpu,tensorrt]'
FROM packages AS packages-trainer
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
RUN /opt/pip/bin/pip --python /opt/limner/bin/python install -c constraints.txt '.[train,tensorboard,export,cpu]'

FROM pip AS code
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
COPY clients clients
COPY training training
COPY export export
COPY server server
COPY limner limner
RUN /opt/pip/bin/pip install --no-deps --target /app .

FROM ${BASE} AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="limner" \
  org.opencontainers.image.description="Trains small image generators, exports them to ONNX, serves them in batches over HTTP." \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/limner/bin:${PATH} PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/home/limner
RUN install -d -o 10001 -g 10001 /home/limner
WORKDIR /home/limner
ENTRYPOINT ["limner"]

FROM runtime AS server
ENV LIMNER_HOST=0.0.0.0 LIMNER_MODELS=/models
EXPOSE 8000
CMD ["serve"]

FROM server AS server-cpu
COPY --from=packages-cpu /opt/limner /opt/limner
COPY --from=code /app /app
USER 10001:10001

FROM server AS server-gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-gpu /opt/limner /opt/limner
COPY --from=code /app /app
USER 10001:10001

FROM runtime AS trainer
COPY --from=packages-trainer /opt/limner /opt/limner
COPY --from=code /app /app
USER 10001:10001
CMD ["train", "--help"]

FROM scratch AS models
COPY models /

FROM server-cpu AS demo
COPY models /models
