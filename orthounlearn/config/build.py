"""Objects from configuration: the only caller of `hydra.utils.instantiate`."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Unpack, get_args, get_origin

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from orthounlearn.config import CONF_DIR, INSTALLED
from orthounlearn.config.checks import validate_keys
from orthounlearn.errors import UsageError

T = TypeVar("T")

NOTES = ("name", "search", "gate", "tuned")
"""Keys of a node that are for people and tools, not for its target (unless it asks for them)."""


def settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a node decides a result: its name and options, without the other notes.

    >>> settings({"name": "m", "rate": 0.1, "gate": {"retain": 0.9}})
    {'name': 'm', 'rate': 0.1}
    """
    return {key: value for key, value in node.items() if key == "name" or key not in NOTES}


def has(node: Mapping[str, Any], option: str) -> bool:
    """Return whether a node has an option, of a node within it by a dotted name.

    >>> has({"optimizer": {"lr": 1}}, "optimizer.lr"), has({"lr": None}, "lr"), has({}, "lr")
    (True, True, False)
    """
    head, _, rest = option.partition(".")
    if head not in node:
        return False
    return not rest or (isinstance(node[head], Mapping) and has(node[head], rest))


def plain(node: DictConfig) -> dict[str, Any]:
    """Return a config as resolved plain dicts and lists.

    Raises:
        UsageError: A mandatory value (`???`) is missing, or there is a key that nobody reads.
    """
    validate_keys(node)
    missing = sorted(OmegaConf.missing_keys(node))
    if missing:
        raise UsageError(
            f"Expected a value for {', '.join(missing)}. Give it on the command line as "
            f"{missing[0]}=VALUE."
        )
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def validate_targets(config: Mapping[str, Any]) -> None:
    """Check every `_target_` node before anything is built: it exists and accepts its options.

    Catches what the schema cannot see, such as `learning_rate` given to `torch.optim.SGD`, or
    `lr=-1`.

    Raises:
        UsageError: Lists all the nodes that cannot be built.
    """
    problems = list(_problems(config, ""))
    if problems:
        raise UsageError("The configuration cannot be built:\n  " + "\n  ".join(problems))


def _problems(node: Any, path: str) -> list[str]:  # noqa: ANN401 - any node of a config
    if isinstance(node, Mapping):
        found = [
            problem
            for key, value in node.items()
            for problem in _problems(value, f"{path}.{key}" if path else str(key))
        ]
        if "_target_" in node:
            found += _target_problems(node, path)
        return found
    if isinstance(node, list):
        return [
            problem
            for index, value in enumerate(node)
            for problem in _problems(value, f"{path}[{index}]")
        ]
    return []


def _target_problems(node: Mapping[str, Any], path: str) -> list[str]:
    try:
        target = locate(str(node["_target_"]))
    except UsageError as error:
        return [f"{path}: {error}"]
    given = [key for key in node if not key.startswith("_") and key not in NOTES]
    valid, takes_any = _options(target)
    unknown = [] if takes_any else [key for key in given if key not in valid]
    if not unknown:
        return _trial_problems(node, target, path)
    return [
        f"{path}.{key}: expected an option of {node['_target_']}, but it has no `{key}`; "
        f"valid are {', '.join(valid) or 'none'}."
        for key in unknown
    ]


def _trial_problems(node: Mapping[str, Any], target: Callable[..., Any], path: str) -> list[str]:
    """Return why an optimiser or a scheduler cannot be made of its options.

    They are made when a training starts; here one is made for a single number.
    """
    import torch  # here, so that composing a config stays fast

    if not (inspect.isclass(target) and node.get("_partial_")):
        return []
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    given: Any = parameters
    if issubclass(target, torch.optim.lr_scheduler.LRScheduler):
        given = torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
    elif not issubclass(target, torch.optim.Optimizer):
        return []
    try:
        build(node)(given, **accepted(node, {"total_steps": _STEPS, "T_max": _STEPS}))
    except (TypeError, ValueError) as error:
        options = ", ".join(f"{key}={node[key]!r}" for key in node if not key.startswith("_"))
        return [
            f"{path}: expected options that {node['_target_']} takes, but of {options} it says: "
            f"{error}."
        ]
    return []


_STEPS = 1000


def _options(target: Callable[..., Any]) -> tuple[list[str], bool]:
    """Return the names of a target's options, and whether it takes others as well.

    `**options: Unpack[Some]` takes those of the TypedDict `Some`, and no others.
    """
    names, takes_any = [], False
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(name)
        elif get_origin(parameter.annotation) is Unpack:
            names += get_args(parameter.annotation)[0].__annotations__
        else:
            takes_any = True
    return names, takes_any


def locate(target: str) -> Callable[..., Any]:
    """Import what a dotted path names.

    Raises:
        UsageError: There is no such module, it raises, or it has nothing callable of that name.
    """
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"Expected `_target_` to be the dotted path of a class or function, but "
            f"{target!r} cannot be imported ({error})."
        ) from error
    except Exception as error:  # a user's module may raise anything
        raise UsageError(
            f"Expected to import {target!r}, but its module raises {type(error).__name__}: "
            f"{error}. Correct the module; `python -c 'import {module_name}'` shows where."
        ) from error
    if not callable(found):
        raise UsageError(f"Expected {target!r} to be callable, but it is a {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


def build(node: Mapping[str, Any], expected: type[T] | None = None, **extra: Any) -> T:  # noqa: ANN401
    """Instantiate a node, without its notes.

    Args:
        node: With `_target_`, its options, and perhaps `_partial_`.
        expected: The class of the result, for the type checker and the reader.
        **extra: Options known only at run time. They win over those of the node.
    """
    asked = inspect.signature(locate(str(node["_target_"]))).parameters
    options = {key: node[key] for key in node if key not in NOTES or key in asked}
    built = instantiate(options, _convert_="all", **extra)
    if expected is not None and not isinstance(built, expected):
        raise UsageError(
            f"Expected {node['_target_']} to make a {expected.__name__}, "
            f"but it made a {type(built).__name__}."
        )
    return built  # type: ignore[no-any-return]


def accepted(node: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `extra` that the target of `node` names and the node leaves open.

    Of a target that takes any option (`**kwargs`), such as torchvision's model builders, only
    `num_classes` is assumed: what it passes on to is unknown, but that name is common to all.
    """
    names, takes_any = _options(locate(str(node["_target_"])))
    if takes_any:
        names.append("num_classes")
    return {key: value for key, value in extra.items() if key in names and key not in node}


def compose_job(job: str, overrides: list[str]) -> dict[str, Any]:
    """Return the resolved configuration of a job, as its command line would give it."""
    return plain(compose(job, overrides=overrides))


def compose_variants(
    job: str, overrides: list[str], variants: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the configurations of a job that differ in values alone.

    Composing reads a dozen files and takes a tenth of a second; setting a value and resolving takes
    a tenth of that.

    Args:
        job: Name.
        overrides: What all of them share.
        variants: Top-level keys and their values.
    """
    node = compose(job, overrides=overrides)
    found = []
    for values in variants:
        for key, value in values.items():
            OmegaConf.update(node, key, value, merge=False)
        found.append(plain(node))
    return found


def chosen_experiment() -> str:
    """Return the name of the running job's experiment, or ""."""
    return str(HydraConfig.get().runtime.choices.get("experiment") or "")


def config_dirs() -> list[str]:
    """Return the arguments that give another job the folders of `--config-dir`."""
    sources = HydraConfig.get().runtime.config_sources
    return [
        argument
        for source in sources
        if source.provider == "command-line"
        for argument in ("--config-dir", str(source.path))
    ]


def writable_conf_dir() -> Path:
    """Return the folder of configurations that found values are written to.

    Returns:
        The user's own, of `--config-dir`; else `conf/` of a checkout.

    Raises:
        UsageError: The package is installed, and there is no folder of the user's own: a file
            among installed ones would be lost with the next version, or belongs to others.
    """
    given = config_dirs()
    if given:
        return Path(given[-1])
    if INSTALLED:
        raise UsageError(
            "Expected --config-dir=FOLDER, a folder of your own for the values that are found; "
            f"the installed {CONF_DIR} is not written to. Later jobs read them with that option."
        )
    return Path(CONF_DIR)


def command_line_overrides() -> list[str]:
    """Return the overrides that start another job with the running job's configuration."""
    overrides = [str(override) for override in HydraConfig.get().overrides.task]
    experiment = chosen_experiment()
    if experiment and not any(override.startswith("experiment=") for override in overrides):
        overrides.insert(0, f"experiment={experiment}")  # the default of `sweep` is not theirs
    return overrides
