"""What can be asked of a benchmark, and one run from the command line to the report."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from llm_local.bench.machine import Machine, peak_rss_bytes, this_machine
from llm_local.bench.masks import mask_maker
from llm_local.bench.peers.opening import PeerName, Peers
from llm_local.bench.peers.vocabulary import word_vocabulary
from llm_local.bench.plan import SCENARIOS, Plan, prepare
from llm_local.bench.race import Case, Race
from llm_local.bench.report import BenchReport
from llm_local.bench.runners import EngineRunner
from llm_local.bench.scenario import Round, Summary
from llm_local.bench.subjects import Subject, open_shape
from llm_local.cli.bench import add_flags
from llm_local.errors import InvalidRequest
from llm_local.specs import EngineOptions, ModelInfo, ModelSpec

INFO = ModelInfo("tiny", "", "Tiny", 1000, 2000, "float32", "cpu", 100, 50, False)
TINY = ["bench", "--shape", "starter", "--rounds", "1", "--kernels", "off"]
SMALL = [*TINY, "--context", "40", "--new-tokens", "3"]
LLAMA = Peers((PeerName("llama.cpp"),), sys.executable)
CONTINUOUS = Peers((PeerName("transformers", "continuous"),), sys.executable)
TRANSFORMERS = Peers((PeerName("transformers"),), sys.executable)


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
        ({"context": (-1,)}, "context"),
        ({"new_tokens": 0}, "new_tokens"),
        ({"scenario": "batch", "streams": (1, 0)}, "streams"),
        ({"scenario": "nothing"}, "scenario"),
        ({"scenario": "arrivals", "rate": 0.0}, "rate"),
        ({"scenario": "arrivals", "requests": 0}, "requests"),
        ({"scenario": "decode", "streams": (1,)}, "streams"),
        ({"scenario": "prefix", "streams": (1,)}, "streams"),
        ({"scenario": "prefix", "context": (1, 2)}, "context"),
        ({"scenario": "prefill", "new_tokens": 4}, "new_tokens"),
        ({"scenario": "startup", "context": (4,)}, "context"),
        ({"scenario": "decode", "rate": 2.0}, "rate"),
        ({"scenario": "stall", "peers": TRANSFORMERS}, "against"),
        ({"scenario": "startup", "peers": TRANSFORMERS}, "against"),
        ({"scenario": "arrivals", "peers": LLAMA}, "against"),
        ({"scenario": "serve", "peers": LLAMA}, "against"),
        ({"scenario": "batch", "peers": CONTINUOUS}, "against"),
        ({"scenario": "serve", "context": (1, 2)}, "context"),
        ({"scenario": "serve", "rate": 1.0}, "rate"),
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
        ["batch", "--streams", "1,x"],
        ["batch", "--streams", ""],
        ["batch", "--streams", "0"],
        ["--rounds", "0"],
        ["--threads", "0"],
        ["--quant", "int3"],
        ["--kernels", "fast"],
        ["--against", "vllm"],
        ["--against", "llama.cpp:Q4"],
        ["arrivals", "--rate", "0"],
        ["arrivals", "--rate", "-1"],
        ["prefix", "--streams", "2"],
        ["server"],
        ["decode", "--against", "transformers:continuous"],
        ["serve", "--against", "llama.cpp"],
    ],
)
def test_mistakes_are_one_line_and_exit_2_before_torch(words: list[str]) -> None:
    check = "import atexit; atexit.register(lambda: 'torch' in sys.modules and print('heavy'))"
    done = bench("bench", *words, before=check)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_batch_against_transformers_from_the_command_line() -> None:
    done = bench(*SMALL, "batch", "--streams", "2,1", "--against", "transformers", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {
        "scenario", "settings", "model", "runs_as", "machine", "peers", "versions", "rounds", "summary",
        "peak_rss_bytes", "verdict", "interrupted",
    }  # fmt: skip
    assert [(one["what"], one["figures"]["streams"]) for one in report["rounds"]] == [
        ("llm-local", 1), ("transformers", 1), ("llm-local", 2), ("transformers", 2),
    ]  # fmt: skip
    assert all(one["figures"]["decode_tokens_per_s"] > 0 for one in report["rounds"])
    assert all(one["read_bytes_per_s"] > 0 for one in report["rounds"])
    assert all(one["figures"]["peak_rss_bytes"] > report["model"]["weight_bytes"] for one in report["rounds"])
    assert report["summary"][1]["ratio"] > 0
    assert report["settings"] == {
        "streams": [1, 2], "context": [40], "new_tokens": 3, "rounds": 1, "against": ["transformers"],
    }  # fmt: skip
    assert report["peers"]["transformers"]["weight_bytes"] == report["model"]["weight_bytes"]
    assert report["model"]["num_parameters"] > 1e6
    assert report["runs_as"]
    assert report["interrupted"] is False


def test_threads_and_kernels_reach_what_is_measured() -> None:
    done = bench(*SMALL, "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["machine"]["num_threads"] == 1
    assert "native" not in report["runs_as"]


def test_startup_starts_the_one_shot_script() -> None:
    done = bench(*TINY, "startup", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["rounds"]
    figures = one["figures"]
    parts = figures["process_s"] + figures["load_s"] + figures["prefill_s"]
    assert figures["first_token_s"] == pytest.approx(parts)
    assert min(figures["process_s"], figures["load_s"], figures["prefill_s"]) > 0
    assert figures["prompt_tokens"] > 1


def test_arrivals_from_the_command_line() -> None:
    done = bench(*SMALL, "arrivals", "--requests", "3", "--rate", "50")
    assert done.returncode == 0, done.stderr
    assert "arrivals: rate 50.0, requests 3, context 40, new_tokens 3, rounds 1" in done.stdout
    assert "With 50 requests/s arriving" in done.stdout


def test_a_prompt_beyond_the_window_is_refused_before_anything_runs() -> None:
    done = bench(*TINY, "prefill", "--context", "40,100000")
    assert (done.returncode, done.stdout) == (2, "")
    assert "100000 tokens" in done.stderr


def test_every_scenario_says_what_it_is_for() -> None:
    help_text = " ".join(bench("bench", "--help").stdout.split())
    assert all(f"{name}: {takes.help}" in help_text for name, takes in SCENARIOS.items())


def measure(plan: Plan) -> tuple[list[Round], Summary]:
    """A scenario on random weights of the starter's shape, in this process."""
    spec = ModelSpec("starter", dtype="float32", device="cpu")
    with ExitStack() as cleanup:
        scenario = prepare(plan, open_shape("starter", spec, EngineOptions(kernels="off")), cleanup)
        rounds = list(scenario.rounds())
        return rounds, scenario.summarize(rounds)


def test_the_prefix_cache_is_measured_at_work() -> None:
    rounds, summary = measure(Plan("prefix", context=(40,), new_tokens=3, rounds=2))
    for cached, uncached in (rounds[:2], rounds[2:]):
        # all of the first turn but its last token, which was sampled and never read
        assert cached.figures["cached_tokens"] == 40 + 3 - 1
        assert uncached.figures["cached_tokens"] == 0
    assert [row["what"] for row in summary.rows] == ["prefix cache", "no cache"]


def test_a_long_prompt_is_read_beside_a_stream() -> None:
    rounds, summary = measure(Plan("stall", context=(1100,), new_tokens=3, rounds=1))
    # a token of the stream in each of the steps that read 1100 tokens in chunks of at most 512
    assert [one.figures["num_gaps"] for one in rounds] == [3, 3]
    assert summary.verdict.startswith("While 1100 tokens were read for somebody else")


def test_a_schema_is_kept_while_it_is_measured() -> None:
    rounds, summary = measure(Plan("masks", context=(9,), new_tokens=6, rounds=1))
    assert [one.what for one in rounds] == ["free", "JSON schema"]
    assert all(one.figures["decode_tokens_per_s"] > 0 for one in rounds)
    assert summary.rows[1]["mask_share"] < 1
    words = word_vocabulary(3000)
    assert len(set(words)) == len(words) == 3000
    assert words == word_vocabulary(3000)
    mask = mask_maker(3000)()
    allowed = np.flatnonzero(np.asarray(mask.allowed()) == 0)
    assert {words[token_id][0] for token_id in allowed} == {"["}


def test_ctrl_c_leaves_what_was_measured() -> None:
    broken = (
        "from llm_local.bench import race\nwhole = race.Race.rounds\n"
        "def rounds(self):\n"
        "    if self.rounds_wanted == 1:\n        yield next(whole(self))\n"
        "    raise KeyboardInterrupt\n"
        "race.Race.rounds = rounds"
    )
    done = bench(*SMALL, "batch", "--streams", "1,2", "--json", before=broken)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted"
    report = json.loads(done.stdout)
    assert report["interrupted"] is True
    assert len(report["rounds"]) == 1
    done = bench(*SMALL, "--rounds", "2", before=broken)  # broken off before the first figure
    assert (done.returncode, done.stdout) == (130, "")


def test_the_table_has_machine_noise_and_verdict() -> None:
    machine = Machine("Some CPU", 4, 8 << 30, "Linux x86_64", 0.25, 2.0)
    figures = {"streams": 1, "context": 8, "decode_tokens_per_s": 1234.5, "prefill_tokens_per_s": 99.0,
               "ttft_p50_s": 0.5, "ttft_p95_s": 0.5, "itl_p50_s": None, "itl_p95_s": None, "memory_share": 0.823,
               "peak_rss_bytes": 2_500_000_000}  # fmt: skip
    theirs = {**figures, "decode_tokens_per_s": 1000.0}
    engine = EngineRunner(None, {})  # type: ignore[arg-type]
    facts = {
        "weight_bytes": 350_000_000,
        "version": "v7",
        "system": "CPU : AVX2 = 1 | AMX_INT8 = 0 | F16C = 1",
    }
    scenario = Race(
        subject=Subject(None, INFO, EngineOptions(), {}), rounds_wanted=2, probe=lambda: 0.0, runs_as="native step",
        runners=(engine, EngineRunner(None, facts, name="llama.cpp Q4_0")),  # type: ignore[arg-type]
        cases=(Case(1, 8),), new_tokens=4,
    )  # fmt: skip
    rounds = [
        Round(index, what, found, 5e9 + index * 1e9)
        for index in (0, 1)
        for what, found in (("llm-local", figures), ("llama.cpp Q4_0", theirs))
    ]
    report = BenchReport("decode", scenario, rounds, INFO, machine, {"torch": "2"}, 4, 3 * 10**9, True)
    lines = report.text().splitlines()
    assert lines[0] == "model: tiny (Tiny, 1,000 parameters, 0.00 GB), float32 on cpu, native step"
    assert "Some CPU, cores 4, threads 4" in lines[1]
    assert lines[2] == "llama.cpp Q4_0: 0.35 GB, v7, AVX2 F16C"
    assert lines[3] == "decode: streams 1, context 8, new_tokens 4, rounds 2, against llama.cpp Q4_0"
    title, row, other = lines[5:8]
    assert len(title) == len(row) == len(other)
    assert row.split() == ["1", "8", "llm-local", "1,234.5", "0", "-", "-", "99", "82", "2.50", "-"]
    assert other.split()[-1] == "1.23"
    assert lines[9] == (
        "reading memory: 5.0 to 6.0 GB/s; peak memory of this process: 3.00 GB, 3,000 MB over the weights"
    )
    assert lines[10] == (
        "With 8 tokens of context llm-local decodes 1,234.5 tokens/s: 1.23 times as fast as llama.cpp Q4_0; "
        "82 % of what the memory allows."
    )
    assert lines[11].startswith("Broken off")


def test_a_busy_machine_is_called_busy() -> None:
    quiet = Machine("x", 2, 1, "y", 0.1, 3.0)
    assert (quiet.busy, Machine("x", 2, 1, "y", 9.0, 60.0).busy) == (False, True)


def test_this_machine_has_cores_and_memory() -> None:
    machine = this_machine()
    assert machine.num_cores >= 1
    assert machine.memory_bytes > peak_rss_bytes() > 1 << 20


def test_the_docs_and_the_help_tell_of_every_scenario_flag_and_peer() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    told = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text()
    flags = {action.option_strings[-1] for action in parser._actions if action.option_strings}
    of_the_model = {"--help", "--device", "--dtype", "--offline"}
    assert {flag for flag in flags - of_the_model if flag not in told} == set()
    assert set(re.findall(r"^\| `([a-z]+)` \|", told, re.MULTILINE)) == set(SCENARIOS)
    help_text = " ".join(parser.format_help().split())
    for peer in ("transformers", "llama.cpp", "transformers:continuous"):
        takers = ", ".join(name for name, takes in SCENARIOS.items() if peer in takes.against)
        assert f"{peer} with {takers}" in help_text
