"""What becomes of a script's output: lines, levels, pieces, counts."""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
import time
from pathlib import Path

import pytest
from conftest import MakeRunner, RunScript
from support import Lines, run_host

from agentscripts import LogBatch, RunStatus
from agentscripts._logs import discard_logs
from agentscripts.testing import RecordingLogger


def reference_lines(data: bytes, max_line: int = 65536) -> list[str]:
    """Cut bytes into lines by L5, slowly."""
    lines = []
    whole = data.split(b"\n")
    for number, line in enumerate(whole):
        last = number == len(whole) - 1
        if last and not line:
            break
        if not last:
            line = line.removesuffix(b"\r")
        while len(line) > max_line:
            piece = boundary(line, max_line)
            lines.append(line[:piece])
            line = line[piece:]
        lines.append(line)
    return [line.decode("utf-8", "replace").replace("\0", "\ufffd") for line in lines]


def boundary(line: bytes, size: int) -> int:
    """Return the largest length up to ``size`` at which no character is cut in two."""
    for back in range(1, 4):
        byte = line[size - back]
        if byte & 0xC0 != 0x80:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return size - back if length > back and size > back else size
    return size


def of_level(logger: RecordingLogger, level: str) -> list[str]:
    return [line for batch in logger.batches if batch.level == level for line in batch.lines]


def write_chunks(chunks: list[bytes], *, pause: bool = False) -> str:
    """Return a script that writes these chunks with one system call each."""
    between = "time.sleep(0.002)" if pause else "pass"
    return (
        f"#!{sys.executable} -IS\nimport os, time\n"
        f"for chunk in {chunks!r}:\n    os.write(1, chunk); {between}\n"
    )


def random_text(generator: random.Random, size: int) -> bytes:
    alphabet = [b"\n", b"\r", b"\r\n", b"a", b"bc", b"\0", b"\xff", b"\xe2\x82", "é€😀".encode()]
    weights = [2, 1, 2, 6, 6, 1, 1, 1, 3]
    return b"".join(generator.choices(alphabet, weights, k=size))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\r\nb\r\r\nc\rd\r", ["a", "b\r", "c\rd\r"]),
        (b"\r\r\r", ["\r\r\r"]),
        (b"\0\0\n\0", ["\ufffd\ufffd", "\ufffd"]),
        (b"\xff\xc3\n\xe2\x82\n", ["\ufffd\ufffd", "\ufffd"]),
        ("é€😀\n".encode(), ["é€😀"]),
    ],
)
def test_lines_end_at_newlines(
    run: RunScript, lines: Lines, tmp_path: Path, printed: bytes, expected: list[str]
) -> None:
    """L5: a newline ends a line, one CR before it goes, bad bytes and NUL become U+FFFD."""
    (tmp_path / "printed").write_bytes(printed)
    result = run(f"cat {tmp_path}/printed")
    assert lines.lines == expected == reference_lines(printed)
    assert result.lines == len(expected)
    assert result.output_bytes == len(printed)
    assert result.log_path is not None
    assert result.log_path.read_bytes() == printed


@pytest.mark.parametrize(
    "chunks",
    [
        [b"one\r", b"\ntwo\r", b"x\r\n"],
        [b"\xe2", b"\x82", b"\xac\n"],
        [b"a", b"b", b"c"],
        [b"\r", b"\r", b"\n"],
    ],
)
def test_writes_may_part_anything(run: RunScript, lines: Lines, chunks: list[bytes]) -> None:
    """L5: it makes no difference where one write ends and the next one begins."""
    run(write_chunks(chunks, pause=True))
    assert lines.lines == reference_lines(b"".join(chunks))


@pytest.mark.parametrize("max_line", [4, 7, 64])
def test_pieces_of_long_lines(run: RunScript, lines: Lines, tmp_path: Path, max_line: int) -> None:
    """L5: lines over max_line come in pieces that split no character."""
    data = random_text(random.Random(max_line), 4000)
    (tmp_path / "printed").write_bytes(data)
    run(f"cat {tmp_path}/printed", max_line=max_line)
    assert lines.lines == reference_lines(data, max_line)


@pytest.mark.parametrize("text", [b"abc\r\r\n", b"abcd\r\n", b"abcde\r\n", b"abcdefgh\r\r\n"])
def test_carriage_returns_at_max_line(
    run: RunScript, lines: Lines, tmp_path: Path, text: bytes
) -> None:
    """L5: one CR is dropped, not two, where a line is as long as max_line."""
    (tmp_path / "printed").write_bytes(text * 3)
    run(f"cat {tmp_path}/printed", max_line=4)
    assert lines.lines == reference_lines(text * 3, 4)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
@pytest.mark.parametrize("size", [65534, 65535, 65536, 65537])
def test_lines_as_long_as_the_longest(
    run: RunScript, lines: Lines, tmp_path: Path, size: int, end: str
) -> None:
    """L5: a line of 64 KiB, the greatest max_line, give or take a byte."""
    data = ("x" * size + end).encode() * 2
    (tmp_path / "printed").write_bytes(data)
    run(f"cat {tmp_path}/printed")
    assert digest(lines.lines) == digest(reference_lines(data))


@pytest.mark.parametrize("size", [4095, 4096, 4097, 65535, 65536, 65537, 262144, 786432, 786433])
def test_sizes_of_buffers(run: RunScript, lines: Lines, tmp_path: Path, size: int) -> None:
    """L3, L5: output as long as a buffer, give or take a byte, is whole."""
    data = (b"x" * 99 + b"\n") * (size // 100) + b"y" * (size % 100)
    (tmp_path / "printed").write_bytes(data)
    result = run(f"cat {tmp_path}/printed; cat {tmp_path}/printed")
    assert result.log_path is not None
    assert result.log_path.read_bytes() == data * 2
    assert lines.lines == reference_lines(data * 2)


def test_streams_have_levels(run: RunScript, lines: Lines) -> None:
    """L5: stdout's lines have level INFO, stderr's ERROR, and each stream's are in order."""
    result = run(
        "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf rest; printf end >&2"
    )
    assert of_level(lines, "info") == ["out 1", "out 2", "out 3", "rest"]
    assert of_level(lines, "error") == ["err 1", "err 2", "err 3", "end"]
    assert result.lines == 8
    assert lines.flushes == 1


def test_silent_script_calls_no_logger(run: RunScript, lines: Lines) -> None:
    """L7: flush comes after the last line, so not where there is none."""
    assert run("true").ok
    assert lines.lines == []
    assert lines.flushes == 0


def test_streams_interleaved(run: RunScript, lines: Lines) -> None:
    """L5: unfinished lines of two streams that take turns stay apart."""
    script = "i=0; while [ $i -lt 1500 ]; do printf o; printf e >&2; i=$((i+1)); done"
    run(script)
    assert of_level(lines, "info") == ["o" * 1500]
    assert of_level(lines, "error") == ["e" * 1500]


def test_a_line_comes_while_the_script_runs(make_runner: MakeRunner, lines: Lines) -> None:
    """L7: a line reaches the logger while the script waits for an answer to it."""
    gate: list[Path] = []

    def answer(batch: LogBatch) -> None:
        if "question" in batch.lines:
            (gate[0] / "answer").touch()

    logger = RecordingLogger(answer)
    runner = make_runner(
        'echo question; until [ -e "$CODER_SCRIPT_DATA_DIR/../answer" ]; do sleep 0.01; done',
        get_script_logger=lambda _: logger,
    )
    gate.append(runner.data_dir)
    (result,) = runner.execute(timeout=20)
    assert result.ok
    assert logger.lines == ["question"]


def test_the_end_of_a_long_line_comes_while_the_script_runs(make_runner: MakeRunner) -> None:
    """L7: so does what is left of a line after its first piece, when all of it has come."""
    place: list[Path] = []

    def answer(batch: LogBatch) -> None:
        for line in batch.lines:
            (place[0] / line).touch()

    logger = RecordingLogger(answer)
    wait = 'until [ -e "$CODER_SCRIPT_DATA_DIR/../{}" ]; do sleep 0.01; done'
    runner = make_runner(
        f'printf 12345678; echo err >&2; {wait.format("err")}; printf "9ab\n"; {wait.format("b")}',
        get_script_logger=lambda _: logger,
        max_line=10,
    )
    place.append(runner.data_dir)
    (result,) = runner.execute(timeout=20, check=False)
    assert result.ok
    assert logger.lines == ["err", "123456789a", "b"]


def test_closed_streams(run: RunScript, lines: Lines) -> None:
    """K5, L5: a script may close its output early and still counts to its end."""
    result = run("echo a; exec >&-; echo b >&2; exec 2>&-; sleep 0.05; exit 4")
    assert lines.lines == ["a", "b"]
    assert result.exit_code == 4
    assert result.duration >= 0.05


def test_output_of_a_grandchild_after_the_exit(run: RunScript, lines: Lines) -> None:
    """K5: what a background process writes within wait_delay is output like any other."""
    result = run("(sleep 0.1; echo late; printf end) & echo early")
    assert result.status is RunStatus.SUCCEEDED
    assert lines.lines == ["early", "late", "end"]


@pytest.mark.slow
def test_a_pipe_full_at_the_exit(run: RunScript) -> None:
    """L3, L6: what the pipe holds when the script exits is delivered to a slow logger, too."""
    logger = RecordingLogger(lambda _: time.sleep(0.001))
    result = run("head -c 4000000 /dev/zero | tr '\\0' '\\n'", get_script_logger=lambda _: logger)
    assert result.ok
    assert result.lines == len(logger.lines) == 4_000_000
    assert result.lines_dropped == 0


def test_tail(run: RunScript) -> None:
    """L5: the result's tail is the last 20 lines of both streams, the unfinished ones included."""
    result = run("i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); done; printf rest")
    assert result.tail == (*map(str, range(31, 50)), "rest")


def test_nobody_listens(run: RunScript) -> None:
    """L3: with the default logger the file is whole and the lines are counted."""
    result = run("echo a; echo b >&2; printf c", get_script_logger=discard_logs)
    assert (result.lines, result.lines_dropped, result.output_bytes) == (3, 0, 5)
    assert result.tail == ("a", "b", "c")


@pytest.mark.slow
def test_random_bytes_on_both_streams(run: RunScript, tmp_path: Path) -> None:
    """L3, L5: 64 MiB of random bytes on each stream are all in the file, and all lines come."""
    size = 64 * 1024 * 1024
    logger = RecordingLogger()
    result = run(
        f"head -c {size} /dev/urandom | tee {tmp_path}/out & "
        f"head -c {size} /dev/urandom | tee {tmp_path}/err >&2; wait",
        get_script_logger=lambda _: logger,
    )
    assert result.ok
    assert result.log_path is not None
    assert result.log_path.stat().st_size == result.output_bytes == 2 * size
    for level, name in (("info", "out"), ("error", "err")):
        expected = reference_lines((tmp_path / name).read_bytes())
        assert digest(of_level(logger, level)) == digest(expected)


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["", " >&2"])
def test_random_bytes_reach_the_file(run: RunScript, tmp_path: Path, redirection: str) -> None:
    """L3: the file holds 64 MiB of random bytes exactly as they were written."""
    result = run(
        f"head -c 67108864 /dev/urandom | tee {tmp_path}/sent{redirection}",
        get_script_logger=discard_logs,
    )
    assert result.log_path is not None
    assert file_digest(result.log_path) == file_digest(tmp_path / "sent")


def digest(lines: list[str]) -> tuple[int, str]:
    """Return a short value to compare: pytest's difference of two million lines takes hours."""
    every = hashlib.sha256()
    for line in lines:
        every.update(line.encode() + b"\n")
    return len(lines), every.hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_text_in_random_writes(run: RunScript, lines: Lines, seed: int) -> None:
    """L5: random text in random pieces gives the reference's lines."""
    generator = random.Random(seed)
    data = random_text(generator, 60_000)
    cuts = sorted(generator.randrange(len(data)) for _ in range(300))
    chunks = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
    max_line = generator.choice([4, 5, 70, 1000, 65536])
    run(write_chunks(chunks), max_line=max_line)
    assert digest(lines.lines) == digest(reference_lines(data, max_line))


@pytest.mark.slow
@pytest.mark.memory
def test_memory_for_one_endless_line(tmp_path: Path) -> None:
    """L6: 256 MiB without a newline raise the peak memory by 10 MiB at most."""
    program = """
import resource
class Count:
    size = 0
    def send(self, batch):
        self.size += sum(map(len, batch.lines))
    def flush(self): pass
count = Count()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
runner = make("echo warm up", "head -c 268435456 /dev/zero | tr '\\\\0' x",
              get_script_logger=lambda _: count)
with runner:
    runner.execute(lambda script: script.script.startswith("echo"))
    before = peak()
    runner.execute(lambda script: script.script.startswith("head"))
    say("size", count.size)
    say("rise", peak() - before)
"""
    said = dict(line.split() for line in run_host(tmp_path, program))
    assert int(said["size"]) == len("warm up") + 268435456
    assert int(said["rise"]) <= 10 * 1024  # KiB
