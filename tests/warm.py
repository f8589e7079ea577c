"""A Python that has loaded torch once and forks for every command, so that the documentation runs quickly.

``warm.py serve SOCKET`` serves; ``warm.py ask SOCKET NAME ARGUMENT ...`` is what stands on PATH for
``featcache`` and ``python``. The command runs with the files, folder and environment of the asker, who leaves
with its exit code.
"""

import json
import os
import signal
import socket
import sys
import traceback

LOADED = (
    "torch", "zarr", "sklearn.linear_model", "featcache.heads", "featcache.testing", "featcache.cli.main",
    "featcache.cli.extract", "featcache.cli.probe", "featcache.cli.compare", "featcache.cli.manifest",
)  # fmt: skip


def serve(path: str) -> None:
    """Fork for each asker, until killed."""
    from importlib import import_module

    for name in LOADED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            asker, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                answer(asker)
            asker.close()


def answer(asker: socket.socket) -> None:
    """Become what is asked for, and leave as it would."""
    length = int.from_bytes(asker.recv(4, socket.MSG_WAITALL), "big")
    _, files, _, _ = socket.recv_fds(asker, 1, 3)
    wanted = json.loads(asker.recv(length, socket.MSG_WAITALL))
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    code = 1
    try:
        run(*wanted["command"])
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    asker.send(bytes([code]))
    os._exit(code)


def run(name: str, *arguments: str) -> None:
    """``featcache ARGUMENT ...`` or ``python -c TEXT``."""
    sys.argv = [name, *arguments]
    if name == "featcache":
        from featcache.cli.main import main

        main()
    elif arguments[:1] == ("-c",) and len(arguments) == 2:
        main_module = type(sys)("__main__")
        sys.modules["__main__"] = main_module
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec"), main_module.__dict__)
    else:
        raise SystemExit(f"warm.py knows python -c TEXT alone, not {arguments}")


def ask(path: str, *command: str) -> int:
    """Have a command run; its exit code."""
    wanted = {"command": command, "folder": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(wanted).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        server.sendall(len(text).to_bytes(4, "big"))
        socket.send_fds(server, [b"f"], [0, 1, 2])
        server.sendall(text)
        code = server.recv(1)
    return code[0] if code else 1  # it was killed


if __name__ == "__main__":
    sys.exit(ask(*sys.argv[2:]) if sys.argv[1] == "ask" else serve(sys.argv[2]))
