"""Decides whether a recorded history keeps the promises: ``check(operations)`` gives a ``Report``.

``history`` is the record, ``steps`` what each operation claims, ``search`` looks for an order of effects that explains
all of them; where that takes long ``lives`` narrows it down and ``lookahead`` (with ``ids``) sees what can't be
finished. ``laws`` says in a sentence what is impossible, ``checker`` puts these together for every list. ``good`` and
``bad`` are sample histories, ``exhaustive`` tries every order of a small one, ``generate`` makes large good ones.
"""

from checking.checker import Report, check
from checking.history import Entry, Operation, load, save
from checking.laws import Violation

__all__ = ["Entry", "Operation", "Report", "Violation", "check", "load", "save"]
