"""docs/clients.md and docs/librechat.md are true: what they tell people to paste works against a real server."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.live_server import LiveServer

DOCS = Path(__file__).resolve().parents[2] / "docs"
CLIENTS = (DOCS / "clients.md").read_text(encoding="utf-8")
LIBRECHAT = (DOCS / "librechat.md").read_text(encoding="utf-8")
PACKAGES = os.environ.get("NODE_MODULES_FOLDER", "")

_SNIPPET = re.compile(r"^```(python|js)\n(.*?)^```\n\n```text\n(.*?)^```\n", re.M | re.S)
SNIPPETS = [match.groups() for match in _SNIPPET.finditer(CLIENTS)]

# What librechat-data-provider 0.8.524 knows of an entry of endpoints.custom.
KNOWN = set(
    "name apiKey baseURL models titleConvo titleModel titleMethod titlePrompt titlePromptTemplate titleEndpoint "
    "titleTiming titleMessageRole headers addParams dropParams customParams directEndpoint iconURL modelDisplayLabel "
    "streamRate tokenConfig maxToolResultChars provider".split()
)


def only(code: str, language: str) -> str:
    """The name of the package that a snippet is about."""
    pattern = r"^from (\w+) import" if language == "python" else r'^import .* from "([^"]+)"'
    found = re.search(pattern, code, re.M)
    assert found
    return found[1]


def run(words: list[str], code: str, server: LiveServer, folder: Path, name: str) -> str:
    """What a snippet prints when the server is where the page says."""
    assert "http://127.0.0.1:8000" in code
    script = folder / name
    script.write_text(code.replace("http://127.0.0.1:8000", server.base_url), encoding="utf-8")
    done = subprocess.run(
        [*words, str(script)], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code, printed", [one[1:] for one in SNIPPETS if one[0] == "python"])
def test_the_python_snippets_print_what_the_page_says(
    live_server: LiveServer, tmp_path: Path, code: str, printed: str
) -> None:
    assert run([sys.executable], code, live_server, tmp_path, "snippet.py") == printed


@pytest.mark.parametrize("code, printed", [one[1:] for one in SNIPPETS if one[0] == "js"])
def test_the_javascript_snippets_print_what_the_page_says(
    live_server: LiveServer, tmp_path: Path, code: str, printed: str
) -> None:
    package = only(code, "js")
    if not (shutil.which("node") and (Path(PACKAGES) / package).is_dir()):
        pytest.skip(
            f"needs node, and in NODE_MODULES_FOLDER a folder node_modules with the npm package {package}"
        )
    (tmp_path / "node_modules").symlink_to(PACKAGES, target_is_directory=True)
    assert run(["node"], code, live_server, tmp_path, "snippet.mjs") == printed


def test_the_page_has_a_snippet_for_each_client() -> None:
    packages = {only(code, language) for language, code, _ in SNIPPETS}
    assert packages == {"openai", "ollama", "anthropic", "@anthropic-ai/sdk"} and len(SNIPPETS) == 6


@pytest.fixture(scope="module")
def endpoint() -> dict[str, Any]:
    """The one endpoint of the librechat.yaml on the page."""
    [text] = re.findall(r"^```yaml\n(.*?)^```", LIBRECHAT, re.M | re.S)
    [found] = yaml.safe_load(text)["endpoints"]["custom"]
    assert isinstance(found, dict)
    return found


def post(server: LiveServer, endpoint: dict[str, Any], path: str, body: dict[str, Any]) -> Any:
    """A request as LibreChat makes it: to the path of baseURL, with its key."""
    prefix = "/" + endpoint["baseURL"].split("/", 3)[3]
    headers = {"Authorization": f"Bearer {endpoint['apiKey']}", "Accept": "application/json"}
    status, answer = server.ask("POST", prefix + path, body, headers)
    assert status == 200, answer
    return answer


def test_librechat_knows_every_field_of_the_yaml(endpoint: dict[str, Any]) -> None:
    assert set(endpoint) <= KNOWN
    assert (
        endpoint["apiKey"]
        and endpoint["models"]["default"]
        and not endpoint["name"].lower().startswith("ollama")
    )


def test_the_models_of_the_yaml_are_listed_with_its_windows(
    live_server: LiveServer, endpoint: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {endpoint['apiKey']}"}
    status, listed = live_server.ask("GET", "/v1/models", headers=headers)
    windows = {one["id"]: one["context_length"] for one in listed["data"]}
    assert status == 200 and endpoint["models"]["fetch"] is True
    assert set(endpoint["models"]["default"]) <= set(windows)
    assert {name: one["context"] for name, one in endpoint["tokenConfig"].items()} == windows
    assert listed["data"][0]["pricing"] == {
        "prompt": "0",
        "completion": "0",
    }  # else LibreChat reads no window


def test_librechats_chat_and_its_counts(live_server: LiveServer, endpoint: dict[str, Any]) -> None:
    model = endpoint["models"]["default"][0]
    asked: dict[str, Any] = {"model": model, "user": "65f1c0ffee65f1c0ffee65f1", "stream": True}
    asked["stream_options"] = {"include_usage": True}
    asked["messages"] = [{"role": "user", "content": "Hello!"}]
    lines = post(live_server, endpoint, "/chat/completions", asked).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks[:-1])
    assert text.startswith("Hello!") and chunks[-1]["choices"] == [] and chunks[-1]["model"] == model
    assert chunks[-1]["usage"]["prompt_tokens"] > 0 < chunks[-1]["usage"]["completion_tokens"]


def test_librechats_title(live_server: LiveServer, endpoint: dict[str, Any]) -> None:
    assert endpoint["titleConvo"] is True and endpoint["titleModel"] == "current_model"
    assert endpoint["titleMethod"] == "completion"
    words = "Provide a concise, 5-word-or-less title for the conversation: Hello!"
    asked = {"model": endpoint["models"]["default"][0], "user": "65f1c0ffee65f1c0ffee65f1", "stream": False}
    answer = post(
        live_server,
        endpoint,
        "/chat/completions",
        {**asked, "messages": [{"role": "user", "content": words}]},
    )
    assert answer["choices"][0]["message"]["content"].strip()


def test_the_rag_apis_vectors(live_server: LiveServer, endpoint: dict[str, Any]) -> None:
    [text] = re.findall(r"^```ini\n(.*?)^```", LIBRECHAT, re.M | re.S)
    settings = dict(line.split("=", 1) for line in text.splitlines())
    assert (
        settings["EMBEDDINGS_PROVIDER"] == "openai" and settings["RAG_OPENAI_BASEURL"] == endpoint["baseURL"]
    )
    assert settings["RAG_CHECK_EMBEDDING_CTX_LENGTH"] == "False"
    texts = [f"This is part {number}." for number in range(int(settings["EMBEDDINGS_CHUNK_SIZE"]))]
    asked = {"model": "starter", "input": texts, "encoding_format": "base64"}
    answer = post(live_server, endpoint, "/embeddings", asked)
    vectors = [base64.b64decode(one["embedding"]) for one in answer["data"]]
    assert [one["index"] for one in answer["data"]] == list(range(200))
    floats = struct.unpack(f"<{len(vectors[0]) // 4}f", vectors[0])
    assert sum(number * number for number in floats) == pytest.approx(1, abs=1e-3)


def test_token_ids_of_another_vocabulary_are_refused(
    live_server: LiveServer, endpoint: dict[str, Any]
) -> None:
    asked = {"model": "starter", "input": [[9906, 1917]], "encoding_format": "base64"}
    status, answer = live_server.ask("POST", "/v1/embeddings", asked)
    assert status == 400 and answer["error"]["param"] == "input"
