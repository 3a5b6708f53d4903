# The gateway, and in the same image the embedded engine and entrypoint.sh. Two commands:
#
#   docker run … brunix-twisted                   the gateway alone; the engine is where BRUNIX_GRPC_TARGET says
#   docker run … brunix-twisted ./entrypoint.sh   the gateway and the embedded engine, neither outliving the other
#
# See docs/containers.md.

# The Python that requirements.lock is written for and that the tests run on. A tag can be moved: --build-arg
# PYTHON_IMAGE=python:…@sha256:… pins the bytes as well.
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm

# --- The build --------------------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build

# What is needed comes before the source, so that a change of the source downloads nothing. Only wheels: the image has
# no compiler, and what is built on the way would have no hash. Nothing in the image needs pip, so the environment has
# none.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/brunix \
    && pip --python /opt/brunix/bin/python install --require-hashes --only-binary=:all: -r requirements.lock \
    && pip install --require-hashes --only-binary=:all: -r requirements-build.lock

# The folder of the state, which belongs to the gateway's user below.
RUN mkdir -m 0700 state

COPY pyproject.toml README.md LICENSE ./
COPY brunix_twisted ./brunix_twisted
COPY twisted ./twisted
COPY docs ./docs
# pip compiles what it installs: at run time no bytecode is missing.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/brunix/bin/python install --no-deps dist/*.whl

# --- The image --------------------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE}

LABEL org.opencontainers.image.title="brunix_twisted" \
      org.opencontainers.image.description="An OpenAI-, Anthropic- and Ollama-compatible HTTP gateway to the Brunix Assistance Engine" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

# A container is reached from outside of it, so it listens on every interface. Conversations survive the container if a
# volume is mounted at the folder of the state. Logs leave line by line, and no bytecode
# is written: the image's is complete, and the file system may be read-only.
ENV PATH=/opt/brunix/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PROXY_LISTEN=tcp:8000 \
    PROXY_STATE=sqlite:/var/lib/brunix/state.sqlite

WORKDIR /opt/brunix
COPY --from=build /opt/brunix /opt/brunix
COPY --from=build --chown=10001:10001 /build/state /var/lib/brunix
COPY entrypoint.sh ./
# Twisted writes down which plugins it found, at the first look; here that is the only look at which it can.
RUN ["python", "-c", "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"]

# By number, so that Kubernetes can see that it is not root. The user needs no name, and owns only the state.
USER 10001:10001

EXPOSE 8000

# No init is installed: the gateway leaves no process behind, and entrypoint.sh reaps orphans as process 1.
STOPSIGNAL SIGTERM

# The check waits two seconds for a gateway that hangs. It is unhealthy without an engine too: what restarts unhealthy
# containers should ask /health/live.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["brunix", "health"]

CMD ["twistd", "--nodaemon", "--pidfile=", "brunix"]
