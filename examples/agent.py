"""A small agent: it runs its start scripts, works, and runs its stop scripts."""

from agentscripts import LogBatch, Options, Runner, Script, Stage


class Printer:
    def send(self, batch: LogBatch) -> None:
        text = "".join(f"{batch.level:>5} | {line}\n" for line in batch.lines)
        print(text, end="", flush=True)  # in one piece: another script's lines come meanwhile

    def flush(self) -> None:
        pass


with Runner(Options(get_script_logger=lambda log_source_id: Printer())) as runner:
    start = Script(name="clone", script="echo cloning", run_on_start=True, timeout=60)
    check = Script(name="check", script="echo no compiler >&2; exit 3", run_on_start=True)
    runner.init([start, check, Script(name="save", script="echo saving", run_on_stop=True)])
    runner.execute(Stage.START, check=False)  # the agent goes on whatever became of them
    print("the agent's own work goes here", flush=True)
    runner.execute(Stage.STOP, check=False)
