"""The warden: a small process that starts, watches and ends the STDIO servers, so that none of them outlives the hub.

It runs as `python -I -S -E warden.py FD`, imports nothing of ours and stays below 10 MB. FD is one end of a UNIX stream socket.

From the hub: frames of a 4-byte big-endian length and fields joined by NUL (a byte that no argument, variable or path can hold):
    spawn  KEY CWD ARGC ARG... NAME=VALUE...     with the child's ends of stdin, stdout, stderr by SCM_RIGHTS
    stop   KEY GRACE_MS                          the hub has closed stdin; then grace, SIGTERM, grace, SIGKILL, to the whole group
To the hub, lines:
    pid KEY PID | failed KEY ERRNO TEXT | exit KEY CODE      CODE is the exit status, or minus the signal's number

At the end of the socket (the hub is gone, also by kill -9) it ends everything it ever started and exits.
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` imports enum: half a megabyte
import _socket
import os
import select
import sys
import time
from ctypes import CDLL, c_ulong

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MSG_CMSG_CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
LAST_GRACE_S = 0.5
LAST_LIMIT_S = 5.0
RETRY_S = 0.1
RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)


class Seen:
    """One process of /proc."""

    __slots__ = ("alive", "group", "parent", "started")

    def __init__(self, stat: bytes) -> None:
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.alive = fields[0] not in (b"Z", b"X")
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.started = fields[19]


class Group:
    """One server: the process we started leads a session and process group of its own."""

    __slots__ = ("deadline", "grace_s", "leader", "others", "signal")

    def __init__(self, pid: int) -> None:
        self.leader: int | None = pid
        self.signal = 0
        self.grace_s = LAST_GRACE_S
        self.deadline = 0.0
        # Descendants that left the group, known by pid and start time.
        self.others: dict[int, bytes] = {}


def scan() -> dict[int, Seen]:
    """Every process that can be seen; empty where there is no /proc."""
    found: dict[int, Seen] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                    found[int(name)] = Seen(file.read(2048))
            except (OSError, ValueError):
                continue
    return found


def descendants(of: int, seen: dict[int, Seen]) -> set[int]:
    """The pids below `of`."""
    found: set[int] = set()
    size = -1
    while size != len(found):
        size = len(found)
        found |= {pid for pid, process in seen.items() if process.parent == of or process.parent in found}
    return found


def kill(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except OSError:
        pass


class Warden:
    """The loop: one socket, one wake-up pipe for SIGCHLD, one table of groups."""

    def __init__(self, control: "_socket.socket", libc: "CDLL | None") -> None:
        self.control = control
        self.libc = libc
        self.groups: dict[int, tuple[int, Group]] = {}  # process group -> (key, group)
        self.buffer = b""
        self.fds: list[int] = []
        self.outgoing = b""
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Serve until the hub is gone, then end what is left."""
        poll = select.poll()
        poll.register(self.wake_read, select.POLLIN)
        alive = True
        while alive:
            poll.register(self.control.fileno(), select.POLLIN | (select.POLLOUT if self.outgoing else 0))
            for fd, _ in poll.poll(self.wait_ms()):
                if fd == self.wake_read:
                    os.read(self.wake_read, 4096)
                    self.reap()
                else:
                    alive = self.flush() and self.receive()
            self.advance(time.monotonic())
        self.end_all()

    def wait_ms(self) -> float | None:
        """Until the next deadline."""
        deadlines = [group.deadline for _, group in self.groups.values() if group.deadline]
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1 if deadlines else None

    # ---- the hub's side

    def receive(self) -> bool:
        """Read what there is; False when the hub is gone."""
        try:
            data, control, _, _ = self.control.recvmsg(65536, _socket.CMSG_SPACE(64 * 4), MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for level, kind, payload in control:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                self.fds += [int.from_bytes(payload[at : at + 4], sys.byteorder) for at in range(0, len(payload) // 4 * 4, 4)]
        self.buffer += data
        while len(self.buffer) >= 4 and len(self.buffer) >= 4 + (size := int.from_bytes(self.buffer[:4], "big")):
            fields, self.buffer = self.buffer[4 : 4 + size].split(b"\0"), self.buffer[4 + size :]
            if fields[0] == b"spawn":
                self.spawn(int(fields[1]), fields[2], int(fields[3]), fields[4:])
            else:
                self.stop(int(fields[1]), int(fields[2]) / 1000)
        return bool(data)

    def tell(self, line: str) -> None:
        """Queue a line for the hub."""
        self.outgoing += line.replace("\n", " ").encode("utf-8", "replace") + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Write what the socket takes; False when the hub is gone."""
        try:
            if self.outgoing:
                self.outgoing = self.outgoing[self.control.send(self.outgoing) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def spawn(self, key: int, cwd: bytes, count: int, rest: list[bytes]) -> None:
        """Start one child; report its pid, or why it could not be started."""
        pipes, self.fds = self.fds[:3], self.fds[3:]
        argv = rest[:count]
        env = dict(pair.split(b"=", 1) for pair in rest[count:])
        failure_read, failure_write = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self.become(argv, env, cwd, pipes, failure_write, parent)
        os.close(failure_write)
        for fd in pipes:
            os.close(fd)
        failure = b""
        while part := os.read(failure_read, 4096):  # ends at the exec, which closes the other side
            failure += part
        os.close(failure_read)
        if failure:
            os.waitpid(pid, 0)
            self.tell(f"failed {key} {failure.decode('utf-8', 'replace')}")
        else:
            self.groups[pid] = (key, Group(pid))
            self.tell(f"pid {key} {pid}")

    def become(self, argv: list[bytes], env: dict[bytes, bytes], cwd: bytes, pipes: list[int], failure: int, parent: int) -> None:
        """In the child: become the server, or tell why not. Never returns."""
        try:
            for number in RESET_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            if self.libc is not None:
                self.libc.prctl(PR_SET_PDEATHSIG, c_ulong(signal.SIGKILL), 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(127)
            for target, fd in enumerate(pipes):
                os.dup2(fd, target)
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)
        except (OSError, ValueError, IndexError) as error:
            number = error.errno if isinstance(error, OSError) and error.errno else 0
            os.write(failure, f"{number} {error}".encode("utf-8", "replace")[:1000])
        os._exit(127)

    # ---- the children's side

    def stop(self, key: int, grace_s: float) -> None:
        """Begin to end the group of `key`."""
        for pid, (known, group) in self.groups.items():
            if known == key and not group.deadline:
                seen = scan()
                for other in descendants(pid, seen):
                    if seen[other].group != pid:
                        group.others[other] = seen[other].started
                group.grace_s = grace_s
                group.deadline = time.monotonic() + grace_s

    def reap(self) -> None:
        """Collect every child that ended; the rest of its group ends with it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            entry = self.groups.get(pid)
            if entry is None:
                continue
            key, group = entry
            group.leader = None
            self.tell(f"exit {key} {os.waitstatus_to_exitcode(status)}")
            if not self.left(pid, group):
                del self.groups[pid]
            elif not group.signal:
                group.grace_s = min(group.grace_s, LAST_GRACE_S)
                self.signal_group(pid, group)

    def left(self, leader: int, group: Group) -> list[int]:
        """The pids still alive in a group, and of the descendants that left it. Read anew each time: numbers are reused."""
        seen = scan()
        if not seen:
            return [leader] if group.leader else []
        members = [pid for pid, process in seen.items() if process.group == leader and process.alive]
        others = [pid for pid, started in group.others.items() if pid in seen and seen[pid].alive and seen[pid].started == started]
        return members + others

    def signal_group(self, leader: int, group: Group) -> None:
        """SIGTERM the first time, SIGKILL after that."""
        group.signal = signal.SIGKILL if group.signal else signal.SIGTERM
        group.deadline = time.monotonic() + (group.grace_s if group.signal == signal.SIGTERM else RETRY_S)
        for pid in self.left(leader, group):
            kill(pid, group.signal)

    def advance(self, now: float) -> None:
        """Take the next step of every group whose time has come."""
        for pid, (_, group) in list(self.groups.items()):
            if group.deadline and group.deadline <= now:
                if group.leader is None and not self.left(pid, group):
                    del self.groups[pid]
                else:
                    self.signal_group(pid, group)
        if not self.groups:
            # Processes that left their session cannot be told apart by server: they end with the last one.
            self.kill_strays()

    def kill_strays(self) -> bool:
        """Kill every descendant; False when there is none."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        seen = scan()
        strays = descendants(os.getpid(), seen)
        for pid in strays:
            kill(pid, signal.SIGKILL)
        self.reap()
        return bool(strays)

    def end_all(self) -> None:
        """The hub is gone: SIGTERM, half a second, SIGKILL, until nothing is left."""
        for pid, (_, group) in list(self.groups.items()):
            group.grace_s = LAST_GRACE_S
            if not group.signal:
                self.signal_group(pid, group)
        limit = time.monotonic() + LAST_GRACE_S
        while self.groups and time.monotonic() < limit:
            time.sleep(0.01)
            self.reap()
            for pid, (_, group) in list(self.groups.items()):
                if not self.left(pid, group):
                    del self.groups[pid]
        limit = time.monotonic() + LAST_LIMIT_S
        while self.kill_strays() and time.monotonic() < limit:
            time.sleep(0.01)


def main() -> None:
    """Run on the socket whose number is the first argument."""
    control = _socket.socket(fileno=int(sys.argv[1]))
    control.setblocking(False)
    os.set_inheritable(control.fileno(), False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the hub does, not with the terminal
    libc = None
    if sys.platform == "linux":
        libc = CDLL(None)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    Warden(control, libc).run()


if __name__ == "__main__":
    main()
