"""Moving files with the synchronous client."""

import io

import pytest

from k8s_agent_sandbox.exceptions import SandboxRequestError


@pytest.mark.parametrize(
    "content",
    [b"", b"bytes \x00\xff\r\n", b"x" * 5_000_000],
    ids=["empty", "binary", "5 MB"],
)
def test_bytes_come_back_as_they_went(sandbox, content):
    sandbox.files.write("data.bin", content)
    assert sandbox.files.read("data.bin") == content


def test_text_is_utf8(sandbox):
    sandbox.files.write("text.txt", "grüße, 世界")
    assert sandbox.files.read("text.txt") == "grüße, 世界".encode()


def test_a_file_object_is_streamed(sandbox):
    content = bytes(range(256)) * 8192
    sandbox.files.write("stream.bin", io.BytesIO(content))
    assert sandbox.files.read("stream.bin") == content


def test_reading_into_a_file_object(sandbox):
    sandbox.files.write("big.bin", b"y" * 300_000)
    target = io.BytesIO()
    sandbox.files.read_to("big.bin", target)
    assert target.getvalue() == b"y" * 300_000
    with pytest.raises(RuntimeError):
        sandbox.files.read_to("big.bin", io.BytesIO(), max_bytes=1000)


def test_nested_and_absolute_paths(sandbox):
    sandbox.files.write("a/b/c/deep.txt", "deep")
    assert sandbox.files.read("a/b/c/deep.txt") == b"deep"
    sandbox.files.write("/rooted/file.txt", "rooted")
    assert sandbox.files.read("/rooted/file.txt") == b"rooted"
    assert sandbox.files.read("rooted/file.txt") == b"rooted"


@pytest.mark.parametrize("name", ["with space.txt", "per%20cent.txt", "quote'.txt", "ünïcödé.txt"])
def test_names_keep_their_characters(sandbox, name):
    sandbox.files.write(name, name)
    assert sandbox.files.read(name) == name.encode()
    assert sandbox.files.exists(name)
    assert name in [entry.name for entry in sandbox.files.list(".")]


def test_overwriting_replaces_everything(sandbox):
    sandbox.files.write("again.txt", "a long first version")
    sandbox.files.write("again.txt", "short")
    assert sandbox.files.read("again.txt") == b"short"


def test_listing(sandbox):
    sandbox.files.write("dir/one.txt", "1")
    sandbox.files.write("dir/sub/two.txt", "22")
    entries = {entry.name: entry for entry in sandbox.files.list("dir")}
    assert set(entries) == {"one.txt", "sub"}
    assert (entries["one.txt"].type, entries["one.txt"].size) == ("file", 1)
    assert entries["sub"].type == "directory"
    assert entries["one.txt"].modified.tzinfo is not None
    assert [entry.name for entry in sandbox.files.list("/dir/sub")] == ["two.txt"]
    assert "dir" in [entry.name for entry in sandbox.files.list(".")]


def test_existence(sandbox):
    assert not sandbox.files.exists("absent.txt")
    sandbox.files.write("present.txt", "")
    assert sandbox.files.exists("present.txt")
    assert sandbox.files.exists(".")


@pytest.mark.parametrize("path", ["absent.txt", "absent/absent.txt"])
def test_an_absent_file_is_404(sandbox, path):
    with pytest.raises(SandboxRequestError) as error:
        sandbox.files.read(path)
    assert error.value.status_code == 404


def test_a_directory_is_no_file_and_a_file_no_directory(sandbox):
    sandbox.files.write("dir/file.txt", "x")
    with pytest.raises(SandboxRequestError) as error:
        sandbox.files.read("dir")
    assert error.value.status_code == 404
    with pytest.raises(SandboxRequestError) as error:
        sandbox.files.list("dir/file.txt")
    assert error.value.status_code == 404


def test_the_client_refuses_to_leave_the_root(sandbox):
    with pytest.raises(ValueError):
        sandbox.files.write("../outside.txt", "x")


def test_the_server_refuses_to_leave_the_root(sandbox):
    with pytest.raises(SandboxRequestError) as error:
        sandbox.files.read("../../etc/passwd", allow_unsafe_paths=True)
    assert error.value.status_code == 403
    sandbox.commands.run("ln -s /etc/passwd leak")
    with pytest.raises(SandboxRequestError) as error:
        sandbox.files.read("leak")
    assert error.value.status_code == 403


def test_commands_and_files_see_the_same_tree(sandbox):
    sandbox.files.write("input.txt", "b\na\n")
    assert sandbox.commands.run("sort input.txt -o sorted.txt").exit_code == 0
    assert sandbox.files.read("sorted.txt") == b"a\nb\n"


def test_deleting_is_refused_by_the_legacy_mode(sandbox):
    with pytest.raises(NotImplementedError):
        sandbox.files.delete("any.txt")
