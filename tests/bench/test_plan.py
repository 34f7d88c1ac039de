"""What can be asked of a benchmark, and one run from the command line to the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llm_local.bench.decode import DecodeScenario
from llm_local.bench.driving import Subject
from llm_local.bench.machine import Machine, peak_rss_bytes, this_machine
from llm_local.bench.plan import Plan, open_shape, prepare
from llm_local.bench.report import BenchReport
from llm_local.bench.scenario import Round, Summary
from llm_local.errors import InvalidRequest
from llm_local.specs import EngineOptions, ModelInfo, ModelSpec

INFO = ModelInfo("tiny", "", "Tiny", 1000, 2000, "float32", "cpu", 100, 50, False)
SMALL = ["bench", "--shape", "starter", "--rounds", "1", "--prompt-tokens", "40", "--new-tokens", "3"]


def bench(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """One command line in a process of its own; `before` runs in it first."""
    program = f"import sys; from llm_local.cli.main import main\n{before}\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True, text=True, check=False, timeout=120, cwd=Path.home(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"rounds": 0}, "rounds"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"new_tokens": 0}, "new_tokens"),
        ({"sequences": (1, 0)}, "sequences"),
        ({"scenario": "nothing"}, "scenario"),
        ({"scenario": "prefix", "sequences": (1,)}, "sequences"),
        ({"scenario": "stall", "against": "transformers"}, "against"),
    ],
)
def test_impossible_plans_name_the_field(wrong: dict, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Plan(**wrong)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "words",
    [
        ["--shape", "gpt-9"],
        ["--shape", "starter", "--model", "starter"],
        ["--sequences", "1,x"],
        ["--sequences", ""],
        ["--rounds", "0"],
        ["--against", "llama.cpp"],
        ["--scenario", "prefix", "--sequences", "2"],
    ],
)
def test_mistakes_are_one_line_and_exit_2_before_torch(words: list[str]) -> None:
    check = "import atexit; atexit.register(lambda: 'torch' in sys.modules and print('heavy'))"
    done = bench("bench", *words, before=check)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_decode_against_transformers_from_the_command_line() -> None:
    done = bench(*SMALL, "--sequences", "2,1", "--against", "transformers", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(one["what"], one["figures"]["sequences"]) for one in report["rounds"]] == [
        ("llm-local", 1), ("transformers", 1), ("llm-local", 2), ("transformers", 2),
    ]  # fmt: skip
    assert all(one["figures"]["decode_tokens_per_s"] > 0 for one in report["rounds"])
    assert report["summary"][0]["decode_ratio"] > 0
    assert report["settings"] == {
        "sequences": [1, 2], "prompt_tokens": 40, "new_tokens": 3, "rounds": 1, "against": "transformers",
    }  # fmt: skip
    assert report["model"]["num_parameters"] > 1e6
    assert report["peak_rss_bytes"] > report["model"]["weight_bytes"]
    assert report["interrupted"] is False


def measure(plan: Plan) -> tuple[list[Round], Summary]:
    """A scenario on random weights of the starter's shape, in this process."""
    spec = ModelSpec("starter", dtype="float32", device="cpu")
    scenario = prepare(plan, open_shape("starter", spec, EngineOptions()))
    rounds = list(scenario.rounds())
    return rounds, scenario.summarize(rounds)


def test_the_prefix_cache_is_measured_at_work() -> None:
    rounds, summary = measure(Plan("prefix", prompt_tokens=40, new_tokens=3, rounds=2))
    for cached, uncached in (rounds[:2], rounds[2:]):
        # all of the first turn but its last token, which was sampled and never read
        assert cached.figures["cached_tokens"] == 40 + 3 - 1
        assert uncached.figures["cached_tokens"] == 0
    assert [row["what"] for row in summary.rows] == ["prefix cache", "no cache"]


def test_a_long_prompt_is_read_beside_a_stream() -> None:
    rounds, summary = measure(Plan("stall", prompt_tokens=1100, new_tokens=3, rounds=1))
    # a token of the stream in each of the steps that read 1100 tokens in chunks of at most 512
    assert [one.figures["num_gaps"] for one in rounds] == [3, 3]
    assert summary.verdict.startswith("While 1100 tokens were read for somebody else")


def test_ctrl_c_leaves_what_was_measured() -> None:
    broken = (
        "from llm_local.bench import decode\nwhole = decode.DecodeScenario.rounds\n"
        "def rounds(self):\n"
        "    if self.rounds_wanted == 1:\n        yield next(whole(self))\n"
        "    raise KeyboardInterrupt\n"
        "decode.DecodeScenario.rounds = rounds"
    )
    done = bench(*SMALL, "--sequences", "1,2", "--json", before=broken)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted"
    report = json.loads(done.stdout)
    assert report["interrupted"] is True
    assert len(report["rounds"]) == 1
    done = bench(*SMALL, "--rounds", "2", before=broken)  # broken off before the first figure
    assert (done.returncode, done.stdout) == (130, "")


def test_the_table_has_machine_noise_and_verdict() -> None:
    machine = Machine("Some CPU", 4, 8 << 30, "Linux x86_64", 0.25, 2.0)
    figures = {"sequences": 1, "decode_tokens_per_s": 1234.5, "prefill_tokens_per_s": 99.0, "ttft_p50_s": 0.5,
               "ttft_p95_s": 0.5, "itl_p50_s": None, "itl_p95_s": None, "kv_bytes": 2_000_000}  # fmt: skip
    scenario = DecodeScenario(Subject(None, INFO, EngineOptions()), None, (1,), 8, 4, 2, lambda: 0.0)  # type: ignore[arg-type]
    rounds = [Round(index, "llm-local", figures, 5e9 + index * 1e9) for index in (0, 1)]
    report = BenchReport("decode", scenario, rounds, INFO, machine, {"torch": "2"}, 4, 3 * 10**9, True)
    lines = report.text().splitlines()
    assert lines[0] == "model: tiny (Tiny, 1,000 parameters, 0.00 GB), float32 on cpu"
    assert "Some CPU, cores 4, threads 4" in lines[1]
    assert lines[2] == "decode: sequences 1, prompt_tokens 8, new_tokens 4, rounds 2"
    title, row = lines[4:6]
    assert len(title) == len(row)
    assert row.split() == ["1", "llm-local", "1,234.5", "99", "500", "500", "-", "-", "2.0"]
    assert lines[7] == "copy probe: 5.0 to 6.0 GB/s; peak memory of the process: 3.00 GB"
    assert lines[8] == "llm-local decodes 1234.5 tokens/s with 1 sequence."
    assert lines[9].startswith("Broken off")


def test_a_busy_machine_is_called_busy() -> None:
    quiet = Machine("x", 2, 1, "y", 0.1, 3.0)
    assert (quiet.busy, Machine("x", 2, 1, "y", 9.0, 60.0).busy) == (False, True)


def test_this_machine_has_cores_and_memory() -> None:
    machine = this_machine()
    assert machine.num_cores >= 1
    assert machine.memory_bytes > peak_rss_bytes() > 1 << 20
