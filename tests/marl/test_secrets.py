"""Secrets stay in the environment: not in config.yaml, W&B or what is printed."""

import json
import re

import pytest
from omegaconf import OmegaConf

from marl.build import load_run
from marl.config import compose
from marl.run_folder import config_hash, write_config
from marl.secrets import HIDDEN, read_run_config, redacted, settled
from marl.validation import ConfigError

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "key", ["WANDB_API_KEY", "api_key", "Token", "hf_token", "db_password", "SECRET", "client_secret", "key"]
)
def test_keys_that_name_a_secret_are_hidden_at_any_depth(key):
    config = {"a": [{"b": {key: SECRET, "c": 1}}]}
    assert redacted(config) == {"a": [{"b": {key: HIDDEN, "c": 1}}]}


def test_other_keys_stay_as_they_are():
    config = {
        "num_tokens": 3,
        "keys": 2,
        "monkey": "x",
        "api_key": None,
        "token": "${oc.env:TOKEN}",
        "low": [1],
    }
    assert redacted(config) == config


def test_what_is_read_from_the_environment_stays_text_and_the_rest_is_resolved(monkeypatch):
    monkeypatch.setenv("HIDE", SECRET)
    cfg = OmegaConf.create(
        {
            "a": "${oc.env:HIDE}",
            "b": "${a}",
            "c": "x-${oc.env:HIDE}-${d}",
            "d": 3,
            "e": "${oc.decode:${oc.env:HIDE,5}}",
            "f": ["${d}", {"g": "${b}"}],
        }
    )
    assert settled(cfg) == {
        "a": "${oc.env:HIDE}",
        "b": "${oc.env:HIDE}",
        "c": "x-${oc.env:HIDE}-3",
        "d": 3,
        "e": "${oc.decode:${oc.env:HIDE,5}}",
        "f": [3, {"g": "${oc.env:HIDE}"}],
    }
    with pytest.raises(ConfigError, match=re.escape("h.i: write ${oc.env:NAME}")):
        settled(OmegaConf.create({"h": {"i": "${oc.env:HIDE,${oc.env:OTHER}}"}}))


def test_objects_get_the_value_and_files_the_name(monkeypatch, tmp_path):
    monkeypatch.setenv("GAME_PROJECT", SECRET)
    cfg = compose(["logger.project=${oc.env:GAME_PROJECT}"])
    assert cfg.logger.project == SECRET
    write_config(cfg, tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    assert "project: ${oc.env:GAME_PROJECT}" in text
    assert SECRET not in text + OmegaConf.to_yaml(cfg)
    assert text.count("${") == 1  # the network of the algorithm, say, is written out
    first = config_hash(cfg)
    monkeypatch.setenv("GAME_PROJECT", "other")
    write_config(cfg, tmp_path)
    assert config_hash(cfg) == first


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE_SET", raising=False)
    with pytest.raises(ConfigError, match=r"logger\.project: .*NOWHERE_SET"):
        compose(["logger.project=${oc.env:NOWHERE_SET}"])


def test_a_run_folder_reads_no_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HIDE", SECRET)
    path = tmp_path / "config.yaml"
    config = {"run_dir": "${oc.env:HIDE}", "logger": {"project": "${oc.env:HIDE}"}, "env": {"a": 1}}
    path.write_text(json.dumps(config))
    read = read_run_config(path)
    assert OmegaConf.to_container(read, resolve=True) == config
    path.write_text(json.dumps(config | {"env": {"a": ["${oc.env:HIDE}"]}}))
    with pytest.raises(ConfigError, match=r"env.a=.*: a run folder's configuration reads no environment"):
        read_run_config(path)
    with pytest.raises(ConfigError, match="reads no environment"):
        load_run(tmp_path)
