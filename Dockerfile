# docker build --target cpu  --tag spectral-shards:0.2.0 .
# docker build --target cuda --tag spectral-shards:0.2.0-cuda .
# docker run --rm --user "$(id -u)" --volume "$PWD:/data" spectral-shards:0.2.0 split --factor 4 photos/
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS tools
# a compiler, and headers of what Pillow-SIMD reads
RUN apt-get update && apt-get install --yes --no-install-recommends \
        gcc libc6-dev make libjpeg62-turbo-dev zlib1g-dev libwebp-dev libtiff-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .

FROM tools AS build-cpu
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN make install VENV=/opt/spectral EDITABLE= PYTHON=python3

FROM tools AS build-cuda
RUN make install VENV=/opt/spectral EDITABLE= PYTHON=python3

FROM python:${PYTHON} AS run
RUN apt-get update && apt-get install --yes --no-install-recommends libjpeg62-turbo libwebp7 libwebpmux3 libwebpdemux2 libtiff6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home spectral
ENV PATH=/opt/spectral/bin:$PATH PYTHONUNBUFFERED=1
USER spectral
WORKDIR /data
ENTRYPOINT ["spectral"]

FROM run AS cuda
COPY --from=build-cuda /opt/spectral /opt/spectral

FROM run AS cpu
COPY --from=build-cpu /opt/spectral /opt/spectral
