# syntax=docker/dockerfile:1
# Two images from one file:
#   docker build --target api    -t fettle-api .       the API and the commands, without TensorFlow
#   docker build --target worker -t fettle-worker .    the same with TensorFlow, which trains
#   docker build --target worker --build-arg ACCELERATOR=gpu -t fettle-worker:gpu .    with CUDA's libraries for NVIDIA GPUs
# Packages are built in one stage and copied as a finished environment: no compiler, cache or uv in what runs.

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv /opt/fettle
ENV UV_PYTHON=/opt/fettle/bin/python UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /src
COPY requirements/api.txt requirements/
RUN uv pip install -r requirements/api.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY migrations migrations

FROM build AS build-api
RUN uv pip install --no-deps .

FROM build AS build-worker
ARG ACCELERATOR=cpu
COPY requirements/worker.txt requirements/
RUN uv pip install -r requirements/worker.txt \
    && if [ "$ACCELERATOR" = gpu ]; then \
         uv pip install -c requirements/worker.txt \
           "tensorflow[and-cuda]$(sed -n 's/^tensorflow\(==[^ ;]*\).*/\1/p' requirements/worker.txt)"; \
       fi \
    && uv pip install --no-deps .

# What both images share: a user without rights, the data directory, the environment's commands on the path.
FROM python:${PYTHON_VERSION}-slim AS base
RUN useradd --create-home --uid 10001 fettle && install -d -o fettle -g fettle /data
ENV PATH=/opt/fettle/bin:$PATH PYTHONUNBUFFERED=1 FETTLE_DATA_DIR=/data
USER fettle
WORKDIR /home/fettle
VOLUME /data

FROM base AS api
COPY --from=build-api /opt/fettle /opt/fettle
ENV FETTLE_HOST=0.0.0.0 FETTLE_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["fettle", "api"]

FROM base AS worker
COPY --from=build-worker /opt/fettle /opt/fettle
ENV TF_CPP_MIN_LOG_LEVEL=2
# A worker serves nothing: healthy is that it reaches the database, at the schema that its code knows.
HEALTHCHECK --interval=30s --timeout=20s --start-period=30s --retries=3 CMD ["fettle", "check"]
STOPSIGNAL SIGTERM
CMD ["fettle", "worker"]
