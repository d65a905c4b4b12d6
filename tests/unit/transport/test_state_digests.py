"""Module-level state that is compared: looking at it runs none of the program's code."""

from __future__ import annotations

import functools
import sys
import types

import pytest

from parallax._transport.module_state import ModuleState, code_digest, entries_of


class HostileError(Exception):
    """Somebody asked."""


class Proxy:
    """Answers nobody, as a lazy object before its set-up."""

    def __getattribute__(self, name):
        raise HostileError(name)


class Meta(type):
    """Its classes answer nobody either."""

    def __getattribute__(cls, name):
        raise HostileError(name)


class Lazy:
    """Makes what it stands for when it is asked."""

    def __getattr__(self, name):
        raise HostileError(name)


@pytest.fixture
def module(monkeypatch):
    """A module of the program that has such objects."""
    made = types.ModuleType("hostile")
    made.__file__ = "/somewhere/hostile.py"
    made.proxy, made.lazy = Proxy(), Lazy()
    made.cls = Meta("cls", (), {"__module__": "hostile", "entry": 1})
    monkeypatch.setitem(sys.modules, "hostile", made)
    return made


def test_imports_are_noted_without_a_question(module):
    """What a class has is noted as well."""
    state = ModuleState()
    state.note_imports()
    assert state._fresh["hostile", "proxy"] is module.proxy
    assert state._fresh["hostile", "cls.entry"] == 1


def test_digests_ask_nobody(module):
    """Only functions, and what is made of them, have one."""
    assert code_digest(module.proxy) is None
    assert code_digest(module.lazy) is None
    assert code_digest(module.cls)
    assert [name for name, _ in entries_of(module.cls) if name == "entry"]
    assert code_digest(functools.lru_cache(code_digest)) == code_digest(code_digest)
