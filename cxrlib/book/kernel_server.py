"""A process that imports packages once and then forks a Jupyter kernel for each request.

:mod:`cxrlib.book.kernels` runs it as a script, so that it holds no module of `cxrlib`: every kernel
imports its own. Standard input is a socket over which one end of another socket comes for each
kernel. Over that one come the request, a line of JSON, and later the numbers of signals, one per
line; the kernel's process id goes back, and later its exit code. Where a socket ends, whoever
talked has ended, and so do its kernels.
"""

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys

# These look on import whether they are in a notebook, which this process is not.
LEFT = (
    *("IPython", "ipykernel", "matplotlib_inline", "matplotlib.pyplot", "pandas.plotting"),
    *("plotly", "seaborn"),
)
NOWHERE = open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115 - as long as the process


class Current:
    """Stands for ``sys.stderr`` in what is imported here: in a kernel it writes to the kernel's.

    Before that it is silent: what packages say while they are imported belongs to no notebook.
    """

    def __getattr__(self, name: str) -> object:
        return getattr(NOWHERE if sys.stderr is self else sys.stderr, name)


def preload(names: list[str]) -> None:
    """Import what is not there yet; what cannot be imported is left to the kernels."""
    before, sys.stderr = sys.stderr, Current()  # type: ignore[assignment]
    try:
        for name in names:
            if not any(name == left or name.startswith(f"{left}.") for left in LEFT):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
    finally:
        sys.stderr = before


def send(pid: int, number: int) -> None:
    """Send a signal to a kernel and the processes that it started."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # forked just now
        os.kill(pid, number)


def serve(control: socket.socket) -> dict:
    """Start kernels until `control` ends; returns in each kernel, with its request."""
    kernels: dict[int, socket.socket] = {}  # by process id
    asleep, awake = os.pipe()
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(awake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(asleep, selectors.EVENT_READ)

    def end(pid, code):
        talk = kernels.pop(pid)
        if talk in selector.get_map():
            selector.unregister(talk)
        with contextlib.suppress(OSError), talk:
            talk.sendall(f"{code}\n".encode())

    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                _, sent, _, _ = socket.recv_fds(control, 1, 1)
                if not sent:
                    for pid in kernels:
                        send(pid, signal.SIGKILL)
                    sys.exit()
                talk = socket.socket(fileno=sent[0])
                with talk.makefile() as lines:
                    line = lines.readline()
                if not line:  # who asked has ended
                    talk.close()
                    continue
                request = json.loads(line)
                preload(request["modules"])
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    selector.close()
                    for file in (control, talk, *kernels.values()):
                        file.close()
                    os.close(asleep)
                    os.close(awake)
                    return request
                kernels[pid] = talk
                selector.register(talk, selectors.EVENT_READ, pid)
                with contextlib.suppress(OSError):
                    talk.sendall(f"{pid}\n".encode())
            elif key.fileobj == asleep:
                os.read(asleep, 4096)
                with contextlib.suppress(ChildProcessError):
                    while (done := os.waitpid(-1, os.WNOHANG))[0]:
                        end(done[0], os.waitstatus_to_exitcode(done[1]))
            elif key.data in kernels:
                asked = kernels[key.data].recv(4096)
                if not asked:
                    selector.unregister(key.fileobj)
                for number in asked.split() or [b"9"]:  # whoever wanted the kernel has ended
                    send(key.data, int(number))


def become(request: dict) -> None:
    """Make this process what a kernel would be that was started as a program."""
    os.setsid()
    for standard in (0, 1, 2):  # of the terminal, to which no cell writes past its notebook
        os.dup2(NOWHERE.fileno(), standard)
    old = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # what packages set when they were imported, which they will not do again
    set_here = {name: value for name, value in os.environ.items() if name not in STARTED_WITH}
    os.environ.clear()
    os.environ.update(request["env"] | set_here)
    new = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, new), *(place for place in sys.path if place not in old)]
    os.chdir(request["cwd"])
    sys.argv[:] = ["ipykernel_launcher.py", *request["arguments"]]
    if "numpy" in sys.modules:  # kernels would share one sequence of random numbers
        sys.modules["numpy"].random.seed()


if __name__ == "__main__":
    # the folder of this file, whose modules belong to a package
    sys.path_importer_cache.pop(sys.path.pop(0), None)
    STARTED_WITH = set(os.environ)
    from ipykernel import kernelapp

    become(serve(socket.socket(fileno=os.dup(0))))
    kernelapp.launch_new_instance(parent_handle=os.getppid())
