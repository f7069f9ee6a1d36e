"""A running `agent-sandbox up`, and looking at what it started."""

import os
import pathlib
import queue
import re
import signal
import subprocess
import threading
import time

from eventually import PATIENCE, eventually

BINARY = os.environ["AGENT_SANDBOX_BIN"]
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"


class Platform:
    """`agent-sandbox up` as a child process; a context manager that kills what is left of it.

    `program` is the command line that runs it, and `environment` replaces variables of ours.
    """

    def __init__(self, state_dir, *arguments, program=(BINARY,), environment=None):
        self.state_dir = pathlib.Path(state_dir)
        self.process = subprocess.Popen(
            [*program, "up", "--state-dir", self.state_dir, "--router-port", "0", "--api-port", "0"]
            + [str(argument) for argument in arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        self.lines = []
        self.errors = []
        self._output = queue.Queue()
        for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    def _read(self, stream, lines):
        for line in stream:
            lines.append(line.rstrip("\n"))
            self._output.put(line)
        self._output.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def wait_ready(self):
        """Reads until the closing line of the banner."""
        end = time.monotonic() + PATIENCE
        while not any("Press Ctrl-C to stop" in line for line in self.lines):
            assert self.process.poll() is None and time.monotonic() < end, (
                f"not ready; said {self.lines} and {self.errors}"
            )
            try:
                self._output.get(timeout=1)
            except queue.Empty:
                pass
        return self

    def exported(self, name):
        """A variable that the banner tells the user to export."""
        for line in self.lines:
            if match := re.fullmatch(rf"\s*export {name}=(.*)", line):
                return match[1]
        raise AssertionError(f"{name} is not in {self.lines}")

    @property
    def environment(self):
        names = ("KUBECONFIG", "SANDBOX_ROUTER_URL")
        return {**os.environ, **{name: self.exported(name) for name in names}}

    def ports(self):
        """The two ports it serves on."""
        text = "\n".join(self.lines)
        return {int(port) for port in re.findall(r"https?://127\.0\.0\.1:(\d+)$", text, re.MULTILINE)}

    def descendants(self):
        """Every process below it, as (process id, start time) pairs that no later process shares."""
        found, wanted = [], [self.process.pid]
        parents = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and (stat := process_stat(int(entry.name))):
                parents.setdefault(stat[0], []).append((int(entry.name), stat[1]))
        while wanted:
            for child in parents.get(wanted.pop(), []):
                found.append(child)
                wanted.append(child[0])
        return found


def process_stat(pid):
    """(parent, start time) of a process that is there and not a zombie, else None."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, parent, started = fields[0], int(fields[1]), int(fields[19])
    return None if state in "ZX" else (parent, started)


def alive(process):
    """Whether a (process id, start time) pair still runs."""
    stat = process_stat(process[0])
    return stat is not None and stat[1] == process[1]


def assert_all_gone(processes):
    eventually(
        lambda: not [process for process in processes if alive(process)],
        message="every process that was started ends",
    )
