"""The hub's end of the warden: children by pipe, their pids, their ends."""

import array
import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from plughub.kit.errors import Unavailable, UpstreamUnreachable

WARDEN = Path(__file__).with_name("warden.py")
DEFAULT_LANG = "C.UTF-8"
_FRAME_LIMIT = 4 * 1024 * 1024


class Process:
    """A running child. `exited` gets the sentence that says how it ended; the pipe ends belong to whoever asked for it."""

    __slots__ = ("_warden", "exited", "key", "pid", "started", "stderr", "stdin", "stdout")

    def __init__(self, warden: "Processes", key: int, stdin: int, stdout: int, stderr: int) -> None:
        loop = asyncio.get_running_loop()
        self._warden = warden
        self.key = key
        self.pid = 0
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        # None when it runs, else the error number and text of the exec.
        self.started: asyncio.Future[tuple[int, str] | None] = loop.create_future()
        self.exited: asyncio.Future[str] = loop.create_future()

    def stop(self, grace_s: float) -> None:
        """End the process group: `grace_s` for the closed stdin, then SIGTERM, as long again, then SIGKILL."""
        if not self.exited.done():
            self._warden.send(b"stop\0%d\0%d" % (self.key, int(grace_s * 1000)))


class Processes:
    """Starts the warden, talks to it, and starts another one when it has died."""

    def __init__(self) -> None:
        self._popen: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._children: dict[int, Process] = {}
        self._next_key = 1
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._buffer = b""
        self._writing = False

    @property
    def warden_pid(self) -> int | None:
        """The warden's pid while it runs."""
        return self._popen.pid if self._popen else None

    @property
    def pids(self) -> list[int]:
        """The pids of the children that run."""
        return [child.pid for child in self._children.values() if child.pid]

    def start(self) -> None:
        """Start the warden; it leads a session of its own, so that Ctrl-C in the terminal reaches the hub alone."""
        if self._socket is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", "-E", str(WARDEN), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        ours.setblocking(False)
        self._socket = ours
        self._buffer = b""
        asyncio.get_running_loop().add_reader(ours.fileno(), self._on_readable)

    async def spawn(self, command: str, args: Sequence[str], env: Mapping[str, str]) -> Process:
        """Start a child whose environment is `env` and PATH, HOME, LANG.

        Raises UpstreamUnreachable (never ran) with the reason in words.
        """
        self.start()
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        full = {"PATH": os.defpath, "LANG": DEFAULT_LANG} | inherited | dict(env)
        fields = [b"spawn", b"%d" % self._next_key, os.fsencode(os.getcwd()), b"%d" % (len(args) + 1)]
        for text in (command, *args, *(f"{name}={value}" for name, value in full.items())):
            fields.append(_field(text))
        if not command or any(not name or "=" in name for name in full):
            raise UpstreamUnreachable("the command or the name of an environment variable is empty", executed="no")
        frame = b"\0".join(fields)
        if len(frame) > _FRAME_LIMIT:
            raise UpstreamUnreachable("the command line and the environment are too long", executed="no")
        ours, theirs = _pipes()
        child = Process(self, self._next_key, *ours)
        self._next_key += 1
        self._children[child.key] = child
        self.send(frame, theirs)
        failure: tuple[int, str] | None = (0, "cancelled")
        try:
            failure = await child.started
        finally:
            if failure is not None:
                child.stop(0)
                for fd in ours:
                    os.close(fd)
        if failure is not None:
            raise UpstreamUnreachable(_start_failure(command, *failure), executed="no")
        return child

    def send(self, frame: bytes, fds: list[int] | None = None) -> None:
        """Queue a frame; the descriptors in `fds` are given away and closed here."""
        if self._socket is None:
            for fd in fds or []:
                os.close(fd)
            return
        self._outbox.append((len(frame).to_bytes(4, "big") + frame, fds or []))
        if not self._writing:
            self._flush()

    async def aclose(self, timeout_s: float) -> None:
        """Let the children that were told to stop end, then the warden, which ends whatever is left."""
        if self._popen is None:
            return
        waiting = [child.exited for child in self._children.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)
        popen = self._popen
        self._drop("the hub is shutting down")
        try:
            await asyncio.to_thread(popen.wait, 8)
        except subprocess.TimeoutExpired:
            popen.kill()
            await asyncio.to_thread(popen.wait)

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._outbox and self._socket is not None:
            data, fds = self._outbox[0]
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._socket.sendmsg([data], control)
            except BlockingIOError:
                if not self._writing:
                    self._writing = True
                    loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                self._lost()
                return
            for fd in fds:
                os.close(fd)
            if sent < len(data):
                self._outbox[0] = (data[sent:], [])
            else:
                self._outbox.popleft()
        if self._writing and self._socket is not None:
            self._writing = False
            loop.remove_writer(self._socket.fileno())

    def _on_readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            word, key, rest = line.decode().split(" ", 2)
            child = self._children.get(int(key))
            if child is not None:
                self._on_report(word, child, rest)

    def _on_report(self, word: str, child: Process, rest: str) -> None:
        if word == "pid":
            child.pid = int(rest)
            if not child.started.done():
                child.started.set_result(None)
            return
        del self._children[child.key]
        if word == "exit":
            child.exited.set_result(_ending(int(rest)))
        else:
            number, _, text = rest.partition(" ")
            child.exited.set_result("it could not be started")
            if not child.started.done():
                child.started.set_result((int(number), text))

    def _lost(self) -> None:
        """The warden died: its children get SIGKILL from the kernel, the rest of their groups from here."""
        pids = self.pids
        popen = self._popen
        self._drop("its supervisor ended unexpectedly")
        for pid in pids:
            try:
                os.killpg(pid, signal.SIGKILL)
            except OSError:
                continue
        if popen is not None:
            popen.kill()
            popen.wait()  # it is dead already: its socket was closed

    def _drop(self, reason: str) -> None:
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        self._outbox.clear()
        self._socket = self._popen = None
        self._writing = False
        for child in self._children.values():
            if not child.started.done():
                child.started.set_result((0, reason))
            child.exited.set_result(reason)
        self._children.clear()


def _field(text: str) -> bytes:
    if "\0" in text:
        raise UpstreamUnreachable("the command, an argument or an environment variable holds a NUL", executed="no")
    return text.encode("utf-8", "surrogateescape")


def _ending(code: int) -> str:
    if code >= 0:
        return f"the server process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"the server process was ended by signal {name}"


def _start_failure(command: str, number: int, text: str) -> str:
    if number == errno.ENOENT:
        return f"command not found: {command}"
    if number == errno.EACCES:
        return f"permission denied: {command}"
    return f"{command} could not be started: {os.strerror(number) if number else text}"


def _pipes() -> tuple[list[int], list[int]]:
    """Our ends and the child's ends of its stdin, stdout and stderr."""
    made: list[int] = []
    try:
        for _ in range(3):
            made += os.pipe()
    except OSError as error:
        for fd in made:
            os.close(fd)
        raise Unavailable(f"no pipe for a server process: {error.strerror}") from error
    return [made[1], made[2], made[4]], [made[0], made[3], made[5]]
