"""Where the hub is, where it may lead, and who hears the token."""

from __future__ import annotations

import logging

import pytest

from fakehub import redirect, running_hub
from llm_local.errors import ConfigError, HubUnavailable
from llm_local.store.endpoint import checked_endpoint, hub_endpoint, origin, redirected
from llm_local.store.pulling import pull
from llm_local.store.remote import Source

HUB = "https://hub.example"


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("https://cdn.example/x?Signature=1", "https://cdn.example/x?Signature=1"),
        ("/other/model", "https://hub.example/other/model"),
        ("//cdn.example/x", "https://cdn.example/x"),
    ],
)
def test_a_hub_may_lead_to_other_public_machines(target: str, where: str) -> None:
    assert redirected(f"{HUB}/org/model", target, HUB) == where


@pytest.mark.parametrize(
    "target",
    [
        "http://cdn.example/x", "https://127.0.0.1/x", "https://10.0.0.1/x", "https://192.168.1.1/x", "https://[::1]/x",
        "https://169.254.169.254/latest/meta-data", "https://localhost/x", "https://a.localhost/x", "file:///etc/passwd",
        "https://[fe80::1]/x", "https://0.0.0.0/x", "ftp://cdn.example/x", "https://[::ffff:10.0.0.1]/x",
        "//10.0.0.1/x", "https://localhost./x", "https://10.0.0.1./x", "https://2130706433/x", "https://127.1/x",
        "https://0x7f000001/x", "https://0177.0.0.1/x", "https://127.0.0.0x1/x", "https://metadata.google.internal/x",
    ],
)  # fmt: skip
def test_a_public_hub_leads_neither_into_private_networks_nor_out_of_https(target: str) -> None:
    with pytest.raises(HubUnavailable):
        redirected(f"{HUB}/org/model", target, HUB)


def test_a_hub_in_a_private_network_may_lead_there() -> None:
    assert redirected("http://10.0.0.1/a", "http://10.0.0.2/b", "http://10.0.0.1") == "http://10.0.0.2/b"


def test_an_origin_is_scheme_host_and_port() -> None:
    assert origin("https://Hub.Example/a") == origin("https://hub.example:443/b")
    assert (
        len({origin(url) for url in (HUB, "http://hub.example", f"{HUB}:444", "https://hub.example.evil")})
        == 4
    )


@pytest.mark.parametrize(
    "text", ["hub.example", "ftp://hub.example", "https://a b", "https://user:pw@hub.example", "https://"]
)
def test_an_endpoint_that_is_no_address(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--mirror must be") as caught:
        checked_endpoint(text, "--mirror")
    assert "pw" not in str(caught.value)
    monkeypatch.setenv("HF_ENDPOINT", text)
    with pytest.raises(ConfigError, match="HF_ENDPOINT"):
        hub_endpoint()


def test_a_source_does_not_show_its_token() -> None:
    assert "secret" not in repr(Source(HUB, "hf_secret"))


def test_every_request_is_logged_without_what_comes_after_the_path(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with running_hub() as hub, caplog.at_level(logging.INFO, "llm_local.store.hub"):
        hub.add("org/model", {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"x"})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        signed = f"{hub.url}/plain/org/model/model.safetensors?Signature=topsecret"
        hub.faults["model.safetensors"].append(redirect(signed))
        pull("org/model")
        said = [record.getMessage() for record in caplog.records]
        assert len([line for line in said if line.startswith("outbound: GET ")]) == len(hub.requests) == 4
        assert f"outbound: GET {hub.url}/plain/org/model/model.safetensors" in said
    assert not any("secret" in line for line in said)
