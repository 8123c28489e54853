# The gateway alone: secrets come from the environment or mounted files (docs/configuration.md), state lives in /state.
#
#   docker build -t llmcontrol:0.1.0 .
#   docker build -t llmcontrol-tools:0.1.0 --target tools .     with pg_dump, for `manage.py backup` and `restore` on PostgreSQL
#   docker run --rm --env-file settings.env -v llmcontrol:/state llmcontrol:0.1.0 python manage.py migrate
#   docker run --read-only --tmpfs /tmp -p 8000:8000 --env-file settings.env -e ALLOWED_HOSTS=llm.example.com -v llmcontrol:/state llmcontrol:0.1.0
#
# Written to are /state, /tmp and, with `--workers` above 1, /dev/shm: everything else may be read-only.

FROM python:3.11-slim-bookworm AS build
COPY requirements.txt .
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt \
 && /venv/bin/pip uninstall --yes pip setuptools
COPY . /app
# Bytecode is made here once: nothing may be written at run time. It is not compared with its source's date, which copying changes.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib /app

FROM python:3.11-slim-bookworm AS runtime
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LLM_STATE_DIR=/state
RUN useradd --system --uid 10001 --no-create-home llmcontrol && install -d -o llmcontrol -m 700 /state
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
USER 10001
VOLUME /state
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import sys, urllib.request; sys.exit(urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=2).status != 200)"]
CMD ["python", "manage.py", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS tools
USER 0
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-client-15 && rm -rf /var/lib/apt/lists/*
USER 10001
HEALTHCHECK NONE
CMD ["python", "manage.py", "help"]

# Without --target the last stage is built.
FROM runtime
