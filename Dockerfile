# For a GPU host. The locked PyTorch carries CUDA; the host needs NVIDIA's driver and its container
# toolkit. Data, checkpoints and the cache stay outside:
#
#   docker build -t cxrbook .
#   docker run --rm --gpus all -v ~/data:/data:ro -v ~/checkpoints:/checkpoints:ro \
#       -v ~/cxrbook-cache:/cache -v "$PWD/_build:/book/_build" \
#       cxrbook run fine_tuning -p device=cuda -p precision=bfloat16
#
# Credentialed data want a writable folder for what is derived from them: -v ~/data:/data
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends chromium git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /book
COPY . .
# makes .venv from the lock, which is all that the image needs of the network
RUN make sync && mkdir /data /checkpoints /cache
ENV PATH=/book/.venv/bin:$PATH \
    CXRBOOK_DATA=/data \
    CXRBOOK_CHECKPOINTS=/checkpoints \
    CXRBOOK_CACHE=/cache
ENTRYPOINT ["cxrbook"]
CMD ["build"]
