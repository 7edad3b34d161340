"""Where in a checkpoint file the network lies: under which keys of which mappings, and under which prefix of the tensors' names."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from safenet.checkpoint_info import CheckpointError, Taken

_MARK = "transformer.cls_token"  # every Safe-Net has one, and nothing else that is saved beside it
_INNER = "loc_model."  # upstream's name of the network within its model
_TRANSPARENT = {"module", "_orig_mod"}  # put into names by DataParallel and torch.compile
_COUNTERS = {"n_averaged"}  # beside the weights of torch's AveragedModel
_AVERAGE = r"(?<![A-Za-z])(?i:ema)(?![A-Za-z])|(?<=[a-z])EMA(?![a-z])"  # a word of its own: not in "semantic"
_DEPTH = 4


@dataclass(frozen=True)
class Unwrapped:
    """The taken network under the names of SafeNet.state_dict(), and the mappings that it lay in, the file's own first."""

    state: Mapping[str, Tensor]
    mappings: tuple[Mapping[Any, Any], ...]
    taken: Taken


@dataclass(frozen=True)
class _Candidate:
    mappings: tuple[Mapping[Any, Any], ...]
    path: tuple[str, ...]
    prefix: str

    @property
    def words(self) -> tuple[str, ...]:
        """Keys and components of the prefix, but for upstream's own."""
        return (*self.path, *self.prefix.removesuffix(_INNER).split(".")[:-1])

    @property
    def long_name(self) -> str:
        return ".".join((*self.path, *self.prefix.split(".")[:-1])) or "top"


def unwrap(path: Path, content: Mapping[Any, Any], state_key: str | None = None) -> Unwrapped:
    """Find the network in what a file holds.

    Parameters
    ----------
    path : Path
        For messages.
    content : mapping
        What the file holds.
    state_key : str, optional
        Name of the network to take, or one part of the name that no other has, where the file holds several.

    Raises
    ------
    CheckpointError
        If there is none, or none of that name, or several of which none is plainly meant.
    """
    found = list(_candidates(content))
    if not found:
        raise CheckpointError(f"{path}: not a Safe-Net checkpoint: no {_MARK}; it holds {_example(content)} ...")
    named = _named(found)
    name = _plainly_meant(path, list(named)) if state_key is None else _asked_for(path, named, state_key)
    chosen = named[name]
    state, outside = _state(path, chosen, [one.prefix for one in found if one.path == chosen.path])
    others = [other for other in named if other != name]
    if outside:
        many = "tensor" if len(outside) == 1 else "tensors"
        others.append(f"{len(outside)} other {many} ({', '.join(outside[:2])}{', ...' if len(outside) > 2 else ''})")
    return Unwrapped(state, chosen.mappings, Taken(name, tuple(others)))


def _candidates(content: Mapping[Any, Any]) -> Iterator[_Candidate]:
    """Level by level; a mapping that is met a second time is the same network."""
    seen: set[int] = set()
    level: list[tuple[tuple[str, ...], tuple[Mapping[Any, Any], ...]]] = [((), (content,))]
    for _ in range(_DEPTH + 1):
        following = []
        for path, mappings in level:
            if id(mappings[-1]) in seen:
                continue
            seen.add(id(mappings[-1]))
            names = (_bare(str(key)) for key, value in mappings[-1].items() if isinstance(value, Tensor))
            prefixes = {name.removesuffix(_MARK) for name in names if name == _MARK or name.endswith(f".{_MARK}")}
            yield from (_Candidate(mappings, path, prefix) for prefix in sorted(prefixes))
            following += [((*path, str(key)), (*mappings, value)) for key, value in mappings[-1].items() if isinstance(value, Mapping)]
        level = following


def _bare(key: str) -> str:
    return ".".join(word for word in key.split(".") if word not in _TRANSPARENT)


def _named(candidates: Sequence[_Candidate]) -> dict[str, _Candidate]:
    """Short names where they tell the networks apart."""
    short = Counter(".".join(one.words) for one in candidates)
    found: dict[str, _Candidate] = {}
    for one in candidates:
        name = (".".join(one.words) or "top") if short[".".join(one.words)] == 1 else one.long_name
        while name in found:  # a key may hold dots
            name += "'"
        found[name] = one
    return found


def _plainly_meant(path: Path, names: Sequence[str]) -> str:
    """The only one, or the only one that is no moving average."""
    plain = [name for name in names if not re.search(_AVERAGE, name)] if len(names) > 1 else names
    if len(plain) != 1:
        raise CheckpointError(f"{path}: holds several networks: {', '.join(names)}. Name the one to take: extract.state_key = {names[0]!r}")
    return plain[0]


def _asked_for(path: Path, named: Mapping[str, _Candidate], state_key: str) -> str:
    if state_key in named:
        return state_key
    having = [name for name, one in named.items() if state_key in one.words]
    if len(having) > 1:
        raise CheckpointError(f"{path}: extract.state_key = {state_key!r} may be any of {', '.join(having)}; give the whole name")
    if not having:
        near = difflib.get_close_matches(state_key, [*named, *(word for one in named.values() for word in one.words)], n=1, cutoff=0.5)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise CheckpointError(f"{path}: extract.state_key: it holds no network {state_key!r}.{meant} Known: {', '.join(named)}")
    return having[0]


def _state(path: Path, chosen: _Candidate, prefixes: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Split a mapping's tensors into those of the network, by their own names, and those of nothing that is known.

    Where the prefix is upstream's or none, every tensor that is no other network's must be the network's: an unknown one is
    for the check of names to refuse. Any other prefix is a wrapper's, beside which there may be anything.
    """
    state, outside, origin = {}, [], dict[str, str]()
    is_bare = chosen.prefix in ("", _INNER)
    for key, value in chosen.mappings[-1].items():
        name = _bare(str(key))
        if not isinstance(value, Tensor) or (_owner(name, prefixes) not in (chosen.prefix, None)):
            continue
        if name in _COUNTERS or not (is_bare or name.startswith(chosen.prefix)):
            outside.append(str(key))
            continue
        own = name.removeprefix(chosen.prefix or _INNER)
        if own in state:
            raise CheckpointError(f"{path}: holds {origin[own]} and {key}, two tensors of one name; save only one of them as a plain state dict")
        state[own], origin[own] = value, str(key)
    return state, outside


def _owner(name: str, prefixes: Sequence[str]) -> str | None:
    """The longest of the prefixes that a name has: of the network that it belongs to."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)


def _example(content: Mapping[Any, Any]) -> str:
    """A few keys: of the first mapping with tensors, else of the file."""
    level: list[Mapping[Any, Any]] = [content]
    for _ in range(_DEPTH + 1):
        for mapping in level:
            if any(isinstance(value, Tensor) for value in mapping.values()):
                return ", ".join(list(map(str, mapping))[:3])
        level = [value for mapping in level for value in mapping.values() if isinstance(value, Mapping)][:1000]
    return ", ".join(list(map(str, content))[:3]) or "nothing"
