"""A manifest: what it may say, and how its mistakes are told."""

from __future__ import annotations

import math
import re
import signal
from pathlib import Path
from uuid import UUID

import pytest

from agentscripts._manifest import Manifest, ManifestError, load_manifest, parse_manifest
from agentscripts._model import Dependency, Requires, Script
from agentscripts._options import Options
from agentscripts._tables import OptionsTable, ScriptTable, parse_duration

PATH = Path("/work/of/someone/workspace.toml")
GIVEN = "00000000-0000-4000-8000-000000000001"


def parse(text: str) -> Manifest:
    return parse_manifest(text, PATH)


def problems(text: str) -> list[str]:
    """The lines of the error, each without the file's name and line, which they begin with."""
    with pytest.raises(ManifestError) as caught:
        parse(text)
    places = re.compile(rf"{re.escape(str(PATH))}:(\d+:)? ")
    assert all(places.match(line) for line in caught.value.problems)
    return [places.sub("", line) for line in caught.value.problems]


def test_all_fields_of_a_script() -> None:
    """A ``[[script]]`` table becomes the same ``Script`` as its fields would."""
    manifest = parse(
        f"""
        [[script]]
        script = "true"
        name = "one"
        log_source_id = "{GIVEN}"
        id = "{GIVEN.replace("-", "")}"
        timeout = "1m30s"
        log_path = "~/x.log"
        run_on_start = true
        run_on_stop = true
        env = {{ A = "$B", "b c" = "" }}
        [[script]]
        script = "#!/bin/sh"
        name = "two"
        """
    )
    assert manifest.scripts == (
        Script(
            script="true",
            name="one",
            log_source_id=UUID(GIVEN),
            id=UUID(GIVEN),
            timeout=90.0,
            log_path="~/x.log",
            run_on_start=True,
            run_on_stop=True,
            env={"A": "$B", "b c": ""},
        ),
        Script(script="#!/bin/sh", name="two"),
    )
    assert manifest.options == {}


def test_dependencies_and_retries() -> None:
    """D1: a dependency is a name, or a table that says what it must have done."""
    manifest = parse(
        """
        [[script]]
        script = "true"
        name = "a"
        retries = 3
        retry_delay = "500ms"
        [[script]]
        script = "true"
        name = "b"
        depends_on = ["a", { on = "c", requires = "completion" }]
        [[script]]
        script = "true"
        name = "c"
        """
    )
    a, b, _ = manifest.scripts
    assert (a.retries, a.retry_delay) == (3, 0.5)
    assert b.depends_on == (Dependency("a"), Dependency("c", Requires.COMPLETION))


def test_unknown_and_circular_dependencies() -> None:
    """D1: an unknown name is told with its place and a hint, a circle whole."""
    table = '[[script]]\nscript = "true"\nname = "{}"\ndepends_on = ["{}"]\n'
    assert problems(table.format("build", "bild")) == [
        "script[1] \"build\" depends_on: has 'bild', expected the name of another script"
        " (did you mean 'build'?)"
    ]
    assert problems(table.format("a", "b") + table.format("b", "a")) == [
        'script[1] "a" depends_on: is a circle, expected none: a → b → a'
    ]


def test_all_fields_are_known() -> None:
    """A manifest knows every field of ``Script``, and of ``Options`` none that is not there."""
    fields = {name for name in Script.__dataclass_fields__ if not name.startswith("_")}
    assert set(ScriptTable.model_fields) == fields
    assert set(OptionsTable.model_fields) <= set(Options.__dataclass_fields__)


def test_all_options() -> None:
    """The ``[options]`` become arguments for ``Options``; relative paths count from the file."""
    manifest = parse(
        """
        script = []
        [options]
        data_dir = "data"
        log_dir = "../logs"
        working_dir = "."
        cgroup = "/sys/fs/cgroup/x"
        shell = "tools/sh"
        env = { A = "$HOME" }
        wait_delay = 1
        kill_delay = inf
        stop_signal = "SIGTERM"
        max_parallel = 2
        max_log_bytes = 1_000
        log_backups = 3
        append_logs = true
        die_with_parent = true
        """
    )
    options = Options(**manifest.options)
    directory = PATH.parent
    assert options.data_dir_base == directory / "data"
    assert options.log_dir == directory / "../logs"
    assert options.working_dir == directory
    assert options.cgroup == Path("/sys/fs/cgroup/x")
    assert options.shell == str(directory / "tools/sh")
    assert options.env == {"A": "$HOME"}
    assert (options.wait_delay, options.kill_delay) == (1.0, None)
    assert options.stop_signal is signal.SIGTERM
    assert (options.max_parallel, options.max_log_bytes, options.log_backups) == (2, 1000, 3)
    assert options.append_logs is True
    assert options.die_with_parent is True


def test_paths_of_the_home_directory_and_programs_of_path() -> None:
    """``~`` is left to the library, and so is a shell without a slash."""
    options = parse('script = []\n[options]\nlog_dir = "~/x"\nshell = "bash"').options
    assert options == {"log_dir": "~/x", "shell": "bash"}


def test_options_default_to_those_of_the_library() -> None:
    """Without ``[options]`` the library decides."""
    assert parse('[[script]]\nscript = "true"').options == {}


def test_labels_count_from_one() -> None:
    """A script without a name goes by its place, as in the messages."""
    manifest = parse('[[script]]\nscript = "true"\nname = "a"\n[[script]]\nscript = "true"')
    assert list(manifest.labels.values()) == ["a", "script[2]"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (10**9, 1e9),
        (math.inf, None),
        ("1m30s", 90.0),
        ("2h", 7200.0),
        ("1h1m1s1ms", 3661.001),
        ("500ms", 0.5),
        ("1.5m", 90.0),
        ("90s", 90.0),
        ("0s", 0.0),
    ],
)
def test_duration(value: object, seconds: float | None) -> None:
    """A duration is seconds or a text; ``inf`` is no limit."""
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *["", "5", "5x", "m", "1s1m", "1m1m", "-1s", "1 m", "1e3s", "+1s", ".5s", "1.s", "\u0661s"],
        *["inf", "9" * 400 + "h", -1, -0.1, math.nan, -math.inf, 10**400, True, None, [1]],
    ],
)
def test_no_duration(value: object) -> None:
    """All else is refused: no number without a unit, no other order, no sign."""
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(value)


SECONDS = 'expected seconds or a text such as "1m30s"'
TEXT = "expected a quoted text"
DEPENDENCIES = 'expected names of scripts, or tables such as {on = "a", requires = "completion"}'


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ('timeout = "5x"', f'timeout: "5x" is no duration, {SECONDS}'),
        ("timeout = -1", f"timeout: -1 is no duration, {SECONDS}"),
        ("timeout = true", f"timeout: true is no duration, {SECONDS}"),
        ("log_path = 1.5", f"log_path: 1.5 is no text, {TEXT}"),
        ("log_path = 2020-01-01", f"log_path: a date or time is no text, {TEXT}"),
        ('run_on_stop = "yes"', 'run_on_stop: "yes" is no boolean, expected true or false'),
        ("run_on_stop = 1", "run_on_stop: 1 is no boolean, expected true or false"),
        (
            'id = "x"',
            'id: "x" is no UUID, expected a quoted text of 32 hexadecimal digits',
        ),
        ('depends_on = "a"', f'depends_on: "a" is no array, {DEPENDENCIES}'),
        (
            'depends_on = [{ on = "a", when = 1 }]',
            "depends_on[1].when: is unknown, expected one of on, requires",
        ),
        (
            "depends_on = [5]",
            'depends_on[1]: 5 is no dependency, expected a name or a table such as {on = "build"}',
        ),
        ('depends_on = [{ requires = "success" }]', f"depends_on[1].on: is missing, {TEXT}"),
        ("depends_on = [{ on = 5 }]", f"depends_on[1].on: 5 is no text, {TEXT}"),
        (
            'depends_on = [{ on = "a", requires = "x" }]',
            'depends_on[1].requires: "x" is no requirement, expected "success" or "completion"',
        ),
        ("retries = -1", "retries: is -1, expected an integer >= 0"),
        ("env = []", 'env: an array is no table of texts, expected NAME = "value" pairs'),
        ("env.A = 1", f"env.A: an integer is no text, {TEXT}"),
        (
            'env."A=" = "x"',
            "env: has the name 'A=', expected one that is not empty, without '='",
        ),
        (
            r'log_path = "\u0000"',
            r"log_path: is '\x00' and has a NUL at index 0, expected none",
        ),
        ("jitter = inf", f"jitter: inf is no finite duration, {SECONDS}"),
        ('retry_delay = "inf"', f'retry_delay: "inf" is no finite duration, {SECONDS}'),
        ('log_path = "logs/"', "log_path: is 'logs/', expected the path of a file, or ''"),
        ("timeuot = 1", 'timeuot: is unknown, did you mean "timeout"?'),
        ("Timeout = 1", 'Timeout: is unknown, did you mean "timeout"?'),
        (
            "zzz = 1",
            f"zzz: is unknown, expected one of {', '.join(ScriptTable.model_fields)}",
        ),
    ],
)
def test_mistake_in_a_script(field: str, problem: str) -> None:
    """The line names the table, the field, the value and what was expected."""
    text = f'[[script]]\nscript = "true"\n[[script]]\nname = "install"\nscript = "true"\n{field}'
    assert problems(text) == [f'script[2] "install" {problem}']


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "script: is missing, expected [[script]] tables"),
        ("script = 5", "script: 5 is no array of tables, expected [[script]] tables"),
        ("[script]", "script: a table is no array of tables, expected [[script]] tables"),
        ("script = [5]", "script[1]: 5 is no table, expected a table of fields"),
        ("script = []\noptions = 1", "options: 1 is no table, expected an [options] table"),
        ("script = []\n[option]", 'option: is unknown, did you mean "options"?'),
        ("[[script]]", f"script[1] script: is missing, {TEXT}"),
        ('[[script]]\nscript = " "', "script[1] script: is empty or blank, expected a command"),
    ],
)
def test_mistake_in_a_table(text: str, problem: str) -> None:
    """Tables that are missing, unknown or of another type are told as such."""
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("data_dir = 5", f"data_dir: 5 is no path, {TEXT}"),
        ('data_dir = ""', "data_dir: is '', expected a path"),
        ('data_dir_base = "x"', 'data_dir_base: is unknown, did you mean "data_dir"?'),
        ('shell = ""', "shell: is '', expected the path of a shell"),
        ("max_parallel = 0", "max_parallel: is 0, expected an integer >= 1"),
        ("log_backups = 2.5", "log_backups: 2.5 is no integer, expected a whole number"),
        (
            'stop_signal = "HUP"',
            'stop_signal: "HUP" is no signal, expected a name such as "SIGHUP"',
        ),
        (
            'stop_signal = "SIGSTOP"',
            "stop_signal: is SIGSTOP, expected a signal of signal.Signals that can ask a process "
            "to end",
        ),
        ('wait_delay = "1"', f'wait_delay: "1" is no duration, {SECONDS}'),
    ],
)
def test_mistake_in_the_options(field: str, problem: str) -> None:
    """The library's own checks of ``Options`` are told in the manifest's words."""
    assert problems(f"script = []\n[options]\n{field}") == [f"options {problem}"]


def test_all_mistakes_at_once() -> None:
    """One attempt tells everything: types, the library's checks, names used twice."""
    text = r"""
        [[script]]
        name = "a"
        script = ""
        env."=" = ""
        [[script]]
        name = "a"
        script = "\u0000"
        timeout = "x"
        [[script]]
        name = "a"
        script = 5
        [options]
        max_parallel = 0
        log_backups = 0
    """
    used = "is 'a' and used by another script, expected a unique one"
    assert problems(text) == [
        'script[1] "a" script: is empty or blank, expected a command',
        "script[1] \"a\" env: has the name '=', expected one that is not empty, without '='",
        f'script[2] "a" name: {used}',
        'script[2] "a" script: has a NUL at index 0, expected none',
        f'script[2] "a" timeout: "x" is no duration, {SECONDS}',
        f'script[3] "a" name: {used}',
        f'script[3] "a" script: an integer is no text, {TEXT}',
        "options max_parallel: is 0, expected an integer >= 1",
        "options log_backups: is 0, expected an integer from 1 to 1000",
    ]


def test_ids_are_unique() -> None:
    """What the library checks across scripts is told too."""
    one = f'[[script]]\nscript = "true"\nid = "{GIVEN}"\nname ='
    (problem,) = problems(f'{one} "a"\n{one} "b"')
    used = f"is {GIVEN} and used by script 'a', expected a unique one"
    assert problem == f'script[2] "b" id: {used}'


def test_mistakes_between_scripts_come_with_the_others() -> None:
    """D1, C1: a wrong field hides no unknown name, circle or schedule, each has its line."""
    text = '''
    [[script]]
    name = "a"
    script = """
    [[script]]
    timeout = 1
    """
    timeout = "x"
    depends_on = [
        "b",
        "nobody",
        "no one",
    ]

    [[script]]
    script = 5
    name = "b"
    depends_on = ["a"]
    cron = "never"
    [options]
    timezone = "Europe/Berlin"
    max_parallel = 0
    '''
    with pytest.raises(ManifestError) as caught:
        parse(text)
    told = [line.removeprefix(f"{PATH}:") for line in caught.value.problems]
    assert [line.partition(" is ")[0].partition(" has")[0] for line in told] == [
        '8: script[1] "a" timeout: "x"',
        '9: script[1] "a" depends_on:',
        '9: script[1] "a" depends_on:',
        '9: script[1] "a" depends_on:',
        '16: script[2] "b" script: an integer',
        '19: script[2] "b" cron:',
        "22: options max_parallel:",
    ]
    assert "'nobody'" in told[1]
    assert "'no one'" in told[2]
    assert "a → b → a" in told[3]


def test_a_wrong_zone_hides_no_wrong_schedule() -> None:
    """C1: what is wrong with the fields of a schedule is so in each zone."""
    text = '[[script]]\nscript = "true"\ncron = "* *"\n[options]\ntimezone = "Mars/Base"'
    schedule, zone = problems(text)
    assert schedule.startswith("script[1] cron: is '* *' and has 2 fields")
    assert zone.startswith('options timezone: "Mars/Base"')


def test_a_misspelled_array_of_tables_has_its_line() -> None:
    """``[[scripts]]`` is told where it stands."""
    with pytest.raises(ManifestError) as caught:
        parse('script = []\n\n[[scripts]]\nname = "a"\n[[scripts]]')
    assert caught.value.problems == (f'{PATH}:3: scripts: is unknown, did you mean "script"?',)


def test_a_schedule_is_not_judged_by_a_syntax_that_is_wrong() -> None:
    """C1: how a schedule is read is an option; where that is wrong, nobody can tell."""
    text = '[[script]]\nscript = "true"\ncron = "0 0 * * *"\n[options]\ncron_syntax = "linux"'
    (problem,) = problems(text)
    assert problem.startswith('options cron_syntax: "linux"')


def test_unknown_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: it is told once, without a line, for none is to blame; other mistakes are told, too."""
    monkeypatch.setenv("TZ", "UTC0")
    table = '[[script]]\nscript = "true"\ncron = "{}"\n'
    parse(table.format("TZ=UTC 0 0 3 * * *"))
    parse(table.format("0 0 3 * * *") + '[options]\ntimezone = "UTC"')
    with pytest.raises(ManifestError) as caught:
        parse("".join(table.format(cron) for cron in ("0 0 3 * * *", "0 0 4 * * *", "TZ=UTC x")))
    zone, schedule = caught.value.problems
    assert zone.startswith(f"{PATH}: TZ is 'UTC0', expected the name")
    assert schedule.startswith(f"{PATH}:9: script[3] cron: is 'TZ=UTC x' and has 1 field")


def test_only_takes_dependencies_along() -> None:
    """D1: some scripts, and what these depend on, in the manifest's order."""
    table = '[[script]]\nscript = "true"\nname = "{}"\ndepends_on = [{}]\n'
    links = {"c": "'b'", "x": "", "b": "'a'", "a": ""}
    manifest = parse("".join(table.format(*link) for link in links.items()))
    assert [script.name for script in manifest.only(["c"]).scripts] == ["c", "b", "a"]
    assert [script.name for script in manifest.only(["x", "a"]).scripts] == ["x", "a"]
    with pytest.raises(ValueError, match='"d" is no script, expected one of c, x, b, a'):
        manifest.only(["a", "d"])


def test_a_selection_keeps_labels() -> None:
    """A script without a name goes by its place in the file, whichever others are chosen."""
    manifest = parse('[[script]]\nscript = "true"\nname = "a"\n[[script]]\nscript = "true"')
    chosen = manifest.only(["script[2]"])
    assert [chosen.labels[script.id] for script in chosen.scripts] == ["script[2]"]
    assert chosen.find("script[2]") == manifest.scripts[1]


@pytest.mark.parametrize("field", ["script = [1973]", "script = 1973", "env = { A = 1973 }"])
def test_secrets_are_not_quoted(field: str) -> None:
    """X1: a wrong value where a script or a variable belongs is not shown."""
    other = "" if field.startswith("script") else 'script = "true"'
    (problem,) = problems(f"[[script]]\n{other}\n{field}")
    assert "1973" not in problem


def test_logs_that_rotate_onto_one_another() -> None:
    """L4: that one log would overwrite another one is a mistake of the manifest."""
    scripts = "".join(
        f"[[script]]\nname = '{path}'\nscript = 'true'\nlog_path = '{path}'\n"
        for path in ("a.log", "a.log.1", "b", "b.2", "a.log.3")
    )
    found = problems(f"[options]\nmax_log_bytes = 1000\nlog_backups = 2\n{scripts}")
    assert [problem.partition(" to,")[0] for problem in found] == [
        """script[2] "a.log.1" log_path: is 'a.log.1', where the log 'a.log' rotates""",
        """script[4] "b.2" log_path: is 'b.2', where the log 'b' rotates""",
    ]
    assert len(parse(scripts).scripts) == 5


def test_long_values_are_cut() -> None:
    """A message stays a line."""
    (problem,) = problems(f'[[script]]\nscript = "true"\ntimeout = "{"x" * 500}"')
    assert f'"{"x" * 59}… is no duration' in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1\nb = 2 x", ":2:7: Expected newline or end of document after a statement"),
        ("a = 1\nb = ", ":2:5: Invalid value"),
        ("a = [1,", ":1:8: Invalid value"),
    ],
)
def test_syntax_error_has_line_and_column(text: str, problem: str) -> None:
    """A mistake in the syntax is told with its place, as compilers do."""
    with pytest.raises(ManifestError) as caught:
        parse(text)
    assert caught.value.problems == (f"{PATH}{problem}",)


@pytest.mark.parametrize("text", ["a = " + "9" * 10_000, "a = " + "[" * 100_000])
def test_what_python_cannot_parse_is_a_mistake_too(text: str) -> None:
    """An endless number or nesting ends in a line, not in a traceback."""
    assert len(problems(text)) == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a directory, or no text is a mistake with the file's name."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"a = 1\nb\xff")
    for path, problem in (
        (tmp_path / "none", ": No such file or directory, expected a TOML file"),
        (tmp_path, ": Is a directory, expected a TOML file"),
        (binary, ":2:2: byte 0xff is no UTF-8, expected a TOML file"),
    ):
        with pytest.raises(ManifestError) as caught:
            load_manifest(path)
        assert caught.value.problems == (f"{path}{problem}",)


def test_byte_order_mark(tmp_path: Path) -> None:
    """What some editors put before all else is no mistake."""
    for name, text in (("m.toml", "script = []"), ("m.json", "[]")):
        (tmp_path / name).write_text(text, "utf-8-sig")
        assert load_manifest(tmp_path / name).scripts == ()


def test_relative_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of a manifest that is named relatively is absolute."""
    monkeypatch.chdir(tmp_path)
    Path("m.toml").write_text('script = []\n[options]\nlog_dir = "x"')
    assert load_manifest(Path("m.toml")).options == {"log_dir": f"{tmp_path}/x"}


# ---- what an author may try


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("timeout", "an integer of 24000 bits is no duration, expected seconds or a text"),
        ("name", "an integer of 24000 bits is no text, expected a quoted text"),
        ("unheard_of", "is unknown"),
    ],
)
def test_a_number_without_an_end(field: str, problem: str) -> None:
    """Manifest: Python writes no integer of more than 4300 digits, so its size is told."""
    text = f'[[script]]\nscript = "true"\n{field} = 0x{"f" * 6000}\n'
    with pytest.raises(ManifestError, match=problem) as caught:
        parse_manifest(text, Path("m.toml"))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("text", ["x = " + "[" * 50000, "x = " + "{a=" * 50000])
@pytest.mark.parametrize("name", ["m.toml", "m.json"])
def test_brackets_without_an_end(text: str, name: str) -> None:
    """Manifest: values inside each other are one mistake, no crash."""
    with pytest.raises(ManifestError):
        parse_manifest(text.partition("= ")[2] if name == "m.json" else text, Path(name))


def test_a_file_without_an_end(tmp_path: Path) -> None:
    """Manifest: no more than 16 MiB are read, be it of a link to a device."""
    (tmp_path / "m.toml").symlink_to("/dev/zero")
    with pytest.raises(ManifestError, match="has more than 16 MiB, expected a TOML file"):
        load_manifest(tmp_path / "m.toml")


def test_names_without_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifest: what may be meant is looked for among a few names of usual length only."""
    seen: list[int] = []

    def count(name: str, known: list[str], n: int) -> list[str]:
        seen.append(len(known))
        return []

    monkeypatch.setattr("difflib.get_close_matches", count)
    scripts = [f'[[script]]\nscript = "true"\nname = "n{i}{"x" * 90}"\n' for i in range(500)]
    wanted = f'depends_on = ["{"y" * 90}", "{"z" * 50000}"]\n'
    with pytest.raises(ManifestError) as caught:
        parse_manifest("".join(scripts) + wanted, Path("m.toml"))
    assert len(caught.value.problems) == 2
    assert max(seen) <= 100
    assert len(seen) == 1


def test_problems_hold_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifest, X1: ``check`` shows paths as they are written, not what they expand to."""
    monkeypatch.setenv("TOKEN", "hunter2")
    script = '[[script]]\nscript = "true"\nlog_path = "/{}"\n'
    text = f"{script.format('$TOKEN')}{script.format('$TOKEN.1')}[options]\nmax_log_bytes = 9"
    with pytest.raises(ManifestError, match="rotates to") as caught:
        parse_manifest(text, Path("m.toml"))
    assert "hunter2" not in str(caught.value)
    assert "$TOKEN.1" in str(caught.value)
