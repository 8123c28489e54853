# The gateway alone: secrets come from the environment or mounted files (docs/configuration.md), state lives in /state.
#
#   docker build -t llmcontrol .
#   docker run --rm --env-file settings.env -v llmcontrol:/state llmcontrol python manage.py migrate
#   docker run -p 8000:8000 --env-file settings.env -e ALLOWED_HOSTS=llm.example.com -v llmcontrol:/state llmcontrol
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LLM_STATE_DIR=/state
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt
COPY . .
RUN useradd --system --uid 10001 llmcontrol && install -d -o llmcontrol -m 700 /state
USER llmcontrol
VOLUME /state
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import sys, urllib.request; sys.exit(urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=2).status != 200)"]
CMD ["python", "manage.py", "serve", "--host", "0.0.0.0", "--port", "8000"]
