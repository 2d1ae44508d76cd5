"""Any text is a manifest, or gets a ``ManifestError`` whose lines all name the file."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["agentscripts", "tomllib"]):
    from agentscripts._manifest import ManifestError, parse_manifest

PATH = Path("/nowhere/scripts.toml")
KEYS = (
    *("script", "name", "cron", "timeout", "log_path", "run_on_start", "run_on_stop", "env"),
    *("depends_on", "overlap", "retries", "retry_delay", "jitter", "id", "log_source_id"),
    *("shell", "max_log_bytes", "stop_signal", "timezone", "wait_delay", "no_such_key"),
)
VALUES = (
    *('"a"', '""', "1", "-1", "0", "1.5", "nan", "inf", "true", "[]", "{}", '["a"]', "1979-05-27"),
    *('"*/5 * * * *"', '"SIGTERM"', '"UTC"', '{A = "b"}', "99999999999999999999", '"\\u0000"'),
    *('{on = "a"}', '[{on = "a", requires = "success"}]', '"\\u202e"', '"~/x"', "0x10"),
)


def pick(data: atheris.FuzzedDataProvider, choices: tuple[str, ...]) -> str:
    return choices[data.ConsumeIntInRange(0, len(choices) - 1)]


def document(data: atheris.FuzzedDataProvider) -> str:
    """Text as it comes, or tables with known keys: most of the former is no TOML."""
    if data.ConsumeIntInRange(0, 3) == 0:
        return str(data.ConsumeUnicode(400))
    lines = []
    for _ in range(data.ConsumeIntInRange(0, 4)):
        lines.append("[options]" if data.ConsumeIntInRange(0, 4) == 0 else "[[script]]")
        for _ in range(data.ConsumeIntInRange(0, 6)):
            value = (
                data.ConsumeUnicodeNoSurrogates(8)
                if data.ConsumeIntInRange(0, 9) == 0
                else pick(data, VALUES)
            )
            lines.append(f"{pick(data, KEYS)} = {value}")
    return "\n".join(lines)


def test_one(raw: bytes) -> None:
    text = document(atheris.FuzzedDataProvider(raw))
    problems: tuple[str, ...] = ()
    try:
        manifest = parse_manifest(text, PATH)
    except ManifestError as error:
        problems = error.problems
    else:
        assert len(manifest.labels) == len(manifest.scripts)
    for problem in problems:
        assert problem.startswith(str(PATH)), problem
        assert "\n" not in problem, problem


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one)
    atheris.Fuzz()
