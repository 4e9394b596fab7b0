"""What a configuration may say about secrets: where they are, never what they are.

A value written `${oc.env:NAME}` is read from the environment when objects are built and when
W&B starts; config.yaml, W&B and every printed configuration keep the text itself. The
configuration of a run folder is data that may come from a stranger: it never reads the
environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from marl.validation import ConfigError, flatten

HIDDEN = "<hidden>"
NOT_BUILT = ("logger", "run_dir", "figure")
_SECRET = re.compile(r"(?!num_)(.*(_key$|apikey|token|passw|secret|credential)|key$)", re.IGNORECASE)
_ENV = re.compile(r"\$\{oc\.decode:\s*\$\{oc\.env:[^{}]*\}\s*\}|\$\{oc\.env:[^{}]*\}")


def redacted(config: Any) -> Any:
    """A copy of a nested dict in which values are hidden whose key names a secret.

    Such keys end in `_key` or hold `token`, `password`, `secret` or `credential`; numbers of
    things (`num_tokens`), null and the text of interpolations stay.
    """
    if isinstance(config, list):
        return [redacted(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {k: HIDDEN if _is_secret(str(k), v) else redacted(v) for k, v in config.items()}


def settled(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain containers with everything resolved but `${oc.env:...}`.

    Raises:
        ConfigError: if an interpolation cannot be resolved, or reads the environment in
            another way than ${oc.env:NAME} or ${oc.env:NAME,default}.
    """
    if not reads_environment(raw := OmegaConf.to_container(cfg)):
        return resolve(cfg)
    texts: list[str] = []

    def hide(match: re.Match) -> str:
        texts.append(match.group())
        return f"_environment_{len(texts) - 1}_"

    raw = _over_text(raw, lambda text: _ENV.sub(hide, text))
    strange = [key for key, value in flatten(raw).items() if "oc.env" in str(value)]
    if strange:
        form = "${oc.env:NAME} or ${oc.env:NAME,default}, without more braces"
        raise ConfigError(f"{key}: write {form}" for key in strange)
    plain = resolve(OmegaConf.create(raw))
    return _over_text(plain, lambda text: re.sub(r"_environment_(\d+)_", lambda m: texts[int(m[1])], text))


def reads_environment(raw: Any) -> bool:
    """Whether a text in nested dicts and lists, not yet resolved, names the environment."""
    return any("oc.env" in str(value) for value in flatten(raw).values())


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain containers with everything resolved, the environment too.

    Raises:
        ConfigError: naming the key whose environment variable, say, does not exist.
    """
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([f"{error.full_key}: {str(error).splitlines()[0]}"]) from error


def read_run_config(path: Path) -> DictConfig:
    """The config.yaml of a run folder with every interpolation as plain text.

    Raises:
        ConfigError: if what is built from it holds an interpolation.
    """
    plain = OmegaConf.to_container(OmegaConf.load(path))
    refused = [
        f"{key}={value}: a run folder's configuration reads no environment; write the value there"
        for key, value in flatten(plain).items()
        if "${" in str(value) and key.split(".")[0] not in NOT_BUILT
    ]
    if refused:
        raise ConfigError(refused)
    return OmegaConf.create(_over_text(plain, lambda text: text.replace("${", "\\${")))


def _is_secret(key: str, value: Any) -> bool:
    given = value is not None and value != {} and value != []
    return given and bool(_SECRET.match(key)) and not (isinstance(value, str) and _ENV.fullmatch(value))


def _over_text(tree: Any, change: Callable[[str], str]) -> Any:
    """Nested dicts and lists with `change` applied to every text in them."""
    if isinstance(tree, dict):
        return {key: _over_text(value, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_over_text(value, change) for value in tree]
    return change(tree) if isinstance(tree, str) else tree
