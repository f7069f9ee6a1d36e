"""Running commands with the synchronous client."""

import secrets
import threading

import pytest

from conftest import TIME_LIMITS
from eventually import eventually
from k8s_agent_sandbox.exceptions import SandboxRequestError


def test_output_and_exit_code(sandbox):
    result = sandbox.commands.run("sh -c 'echo out; echo err >&2; exit 3'")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
    assert not result.timed_out


def test_a_command_is_argv_and_no_shell_line(sandbox):
    assert sandbox.commands.run("echo hi; ls | wc").stdout == "hi; ls | wc\n"
    assert sandbox.commands.run("printf '%s' \"a  b\"").stdout == "a  b"


def test_a_missing_program_is_reported(sandbox):
    result = sandbox.commands.run("no-such-program")
    assert result.exit_code == 1
    assert "No such file or directory: 'no-such-program'" in result.stderr


def test_an_unbalanced_quote_is_reported(sandbox):
    result = sandbox.commands.run("echo 'oops")
    assert result.exit_code == 1 and "No closing quotation" in result.stderr


def test_death_by_signal_is_a_negative_code(sandbox):
    assert sandbox.commands.run("sh -c 'kill -9 $$'").exit_code == -9


def test_a_time_limit_ends_the_tree_and_keeps_what_was_said(sandbox):
    # Processes of the whole machine may be visible, so this sleep takes as long as no other.
    sleep = f"sleep {10**6 + secrets.randbelow(10**6)}"
    for limit in TIME_LIMITS:
        result = sandbox.commands.run(f"sh -c 'echo before; {sleep}; echo after'", command_timeout=limit)
        assert result.timed_out
        assert result.exit_code == 124
        if result.stdout:
            break
    assert result.stdout == "before\n"

    def processes():
        # A process that is being killed is there until it ran once more.
        return sandbox.commands.run("sh -c 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr \"\\\\0\" \" \"'").stdout

    assert "cat /proc" in processes(), "processes can be seen"
    eventually(lambda: sleep not in processes())


def test_a_client_that_hangs_up_gets_an_error(sandbox):
    with pytest.raises(SandboxRequestError) as error:
        sandbox.commands.run("sleep 600", timeout=1)
    # The client tells the router how long it will wait, so both give up after the same second: the
    # client's own limit has no status, the router's answer is 504. Either may come first.
    assert error.value.status_code in (None, 504)


def test_environment_and_directory_are_refused_by_the_legacy_mode(sandbox):
    with pytest.raises(NotImplementedError):
        sandbox.commands.run("env", env={"A": "b"})
    with pytest.raises(NotImplementedError):
        sandbox.commands.run("pwd", cwd="/")


def test_large_output_arrives_whole(sandbox):
    result = sandbox.commands.run("head -c 3000000 /dev/zero")
    assert result.exit_code == 0 and len(result.stdout) == 3_000_000


def test_output_that_is_not_utf8_survives(sandbox):
    result = sandbox.commands.run("printf 'ok \\377 end'")
    assert result.exit_code == 0
    assert result.stdout.startswith("ok ") and result.stdout.endswith(" end")


def test_a_background_child_does_not_hold_the_answer(sandbox):
    result = sandbox.commands.run("sh -c 'sleep 600 & echo started'")
    assert (result.stdout, result.exit_code) == ("started\n", 0)


def test_commands_run_side_by_side(sandbox):
    results = {}

    def run(number):
        results[number] = sandbox.commands.run(f"echo {number}").stdout

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(16)}


def test_standard_input_is_empty(sandbox):
    assert sandbox.commands.run("cat").stdout == ""
