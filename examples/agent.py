"""A small agent: it runs its start scripts, works, and runs its stop scripts."""

import logging

from agentscripts import LogBatch, Options, Runner, RunResult, Script, Stage

SCRIPTS = [
    Script(name="clone", script="echo cloning; sleep 0.2; echo done", run_on_start=True),
    Script(name="check", script="echo no compiler >&2; exit 3", run_on_start=True, timeout=60),
    Script(name="save", script="echo saving", run_on_stop=True),
]


class Printer:
    def send(self, batch: LogBatch) -> None:
        for line in batch.lines:
            print(f"{batch.level:>5} | {line}", flush=True)

    def flush(self) -> None:
        pass


def report(result: RunResult) -> None:
    print(f"{result.script.name}: {result.status} in {result.duration:.2f} s", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    with Runner(Options(get_script_logger=lambda log_source_id: Printer())) as runner:
        runner.init(SCRIPTS, on_complete=report)
        runner.execute(Stage.START, check=False)  # the agent goes on whatever became of them
        print("the agent's own work goes here", flush=True)
        runner.execute(Stage.STOP, check=False)
