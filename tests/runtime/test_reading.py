"""Files as they are read: regular ones, sized first."""

from __future__ import annotations

import os

import pytest

from advkit.errors import InputError
from advkit.runtime import reading


def test_lines_end_as_in_text_files(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"a\r\nb\rc\n\xc3\xa9")
    assert reading.text(path) == path.read_text(encoding="utf-8") == "a\nb\nc\né"


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"\xef\xbb\xbfa", "a"), (b"\xef\xbb\xbf", ""), (b"a\xef\xbb\xbf", "a\ufeff")],
)
def test_a_byte_order_mark_begins_a_text_and_is_no_part_of_it(tmp_path, raw, text):
    (tmp_path / "t").write_bytes(raw)
    assert reading.text(tmp_path / "t") == text


def test_the_limit_is_the_last_that_is_read(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"12345678")
    assert reading.content(path, 8) == b"12345678"
    with pytest.raises(InputError, match="t: 8 bytes, where 7 are the most"):
        reading.content(path, 7)


def test_what_cannot_be_opened_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        reading.opened(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        reading.opened(tmp_path)
    with pytest.raises(ValueError, match="null"):
        reading.opened(tmp_path / "a\0b")


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_pipe_is_refused_though_nobody_writes_to_it(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    open_files = len(os.listdir("/dev/fd"))
    with pytest.raises(InputError, match=f"{name}: a pipe, socket or device"):
        reading.opened(tmp_path / name)
    assert len(os.listdir("/dev/fd")) == open_files


def test_what_no_memory_holds_is_refused(tmp_path):
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    reading.require_room(tmp_path, there)
    with pytest.raises(InputError, match=f"needs {there + 1} bytes of memory"):
        reading.require_room(tmp_path, there + 1)
