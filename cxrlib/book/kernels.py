"""Kernels that need not import what an earlier one imported: forks of one process that did.

Importing torch, transformers and the rest takes as long as many a chapter. A process
(:mod:`cxrlib.book.kernel_server`) that lasts as long as this one imports what the kernels before
used, and forks each new kernel; of this library it imports nothing. Only on Linux: elsewhere,
forking after such imports is unsafe, and kernels are started as programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from importlib.metadata import EntryPoint
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

NAME = "cxrbook-forks"
FORKS = sys.platform == "linux"

_lock = threading.Lock()
_server: tuple[subprocess.Popen, socket.socket] | None = None
_modules: dict[str, None] = {}  # that kernels imported, in their order


def settings() -> dict:
    """What a kernel's specification says in ``metadata`` so that it is forked, where it can be."""
    if not FORKS:
        return {}
    # Jupyter looks for provisioners among installed packages, or here.
    entry = EntryPoint(NAME, f"{__name__}:Provisioner", KernelProvisionerFactory.GROUP_NAME)
    with _lock:
        KernelProvisionerFactory.instance().provisioners[NAME] = entry
    return {"kernel_provisioner": {"provisioner_name": NAME}}


def learn(modules: list[str]) -> None:
    """Have these modules, which a kernel imported, imported before the next one is forked."""
    with _lock:
        _modules.update(dict.fromkeys(modules))


def _ask(request: dict) -> socket.socket:
    """Send a request for a kernel to the server, and start the server where none is."""
    global _server
    with _lock:
        if _server is None or _server[0].poll() is not None:
            ours, theirs = socket.socketpair()
            command = [sys.executable, Path(__file__).with_name("kernel_server.py")]
            env = {
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as in kernels
                **request["env"],
                "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # CUDA, once touched, could not be forked
            }
            with theirs:
                process = subprocess.Popen(command, stdin=theirs, env=env, start_new_session=True)
            _server = process, ours
        request["modules"] = list(_modules)
        talk, far = socket.socketpair()
        with far:
            socket.send_fds(_server[1], [b"k"], [far.fileno()])
    talk.sendall(json.dumps(request).encode() + b"\n")
    return talk


class Kernel:
    """A forked kernel, with those methods of `subprocess.Popen` that Jupyter uses."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], cwd: str, env: dict):
        self.returncode: int | None = None
        try:
            self._talk = _ask({"arguments": arguments, "cwd": str(cwd), "env": env})
            self._lines = self._talk.makefile()
            self.pid = int(self._lines.readline())
        except (OSError, ValueError):
            raise RuntimeError("the process that starts kernels has ended") from None

    def wait(self) -> int:
        if self.returncode is None:
            # A server that was killed says nothing more; its kernels see that and end.
            self.returncode = int(self._lines.readline() or -signal.SIGKILL)
            self._lines.close()
            self._talk.close()
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                self._talk.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:
                pass
            self.wait()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(OSError):  # it ended just now
                self._talk.sendall(f"{int(number)}\n".encode())

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Provisioner(LocalProvisioner):
    """Starts kernels as `Kernel`."""

    async def launch_kernel(self, cmd, **kwargs):
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        self.cwd = kwargs.get("cwd", os.getcwd())
        self.process = Kernel(arguments, self.cwd, kwargs["env"])
        self.pid = self.process.pid
        return self.connection_info
