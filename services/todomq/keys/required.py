"""Which address needs which keys: nobody listens where others can reach it without asking for them.

Owns: that rule. Must not know: sockets. The router keeps it when it starts, ``make up`` says it before anything starts.
"""

from __future__ import annotations

from todomq.errors import InvalidRequest
from todomq.keys.store import KeyPair, KeyStore
from todomq.settings import Settings, SettingsError, is_loopback


class KeysUnusable(SettingsError):
    """This stack has keys, and they are gone or can't be read at the moment."""


def door_pair(settings: Settings) -> KeyPair | None:
    """Return the pair with which the router listens at ``TODOMQ_TCP``.

    Returns:
        None if it listens nowhere, or if the stack has no keys and the address is a loopback one: there it lets in
        everybody on this machine. Once keys were made, the router asks for them at every TCP address.

    Raises:
        SettingsError: others could reach the address, and no keys were ever made.
        KeysUnusable: the stack's own can't be used.
    """
    if not settings.tcp:
        return None
    store = KeyStore(settings.keys)
    if store.exists() or store.were_made():
        return _usable(store)
    if is_loopback(settings.tcp):
        return None
    raise SettingsError(
        f"TODOMQ_TCP is {settings.tcp}, which other machines can reach, and this stack has no keys. "
        "Make them with: todomq keys init; "
        "then one for each client: todomq keys new NAME --lists 'NAME/*' --rights read,write"
    )


def stack_pair(settings: Settings) -> KeyPair | None:
    """Return the pair by which the daemons know each other at ``TODOMQ_STACK_TCP``; None if that is not set.

    Raises:
        SettingsError: there are no keys, or they can't be used.
    """
    if not settings.stack_tcp:
        return None
    store = KeyStore(settings.keys)
    if not store.exists() and not store.were_made():
        raise SettingsError(
            f"TODOMQ_STACK_TCP is {settings.stack_tcp} and this stack has no keys, "
            "by which its daemons know each other. "
            "Make them with: todomq keys init"
        )
    return _usable(store)


def check_keys(settings: Settings) -> None:
    """Check, before anything starts, that the keys that the stack's addresses need are there.

    Raises:
        SettingsError: keys are missing or can't be used; the text says which.
    """
    stack_pair(settings)
    if door_pair(settings) is not None:
        try:
            KeyStore(settings.keys).clients()
        except InvalidRequest as error:
            raise SettingsError(error.text) from None


def _usable(store: KeyStore) -> KeyPair:
    if not store.exists():
        raise KeysUnusable(
            f"{store.directory} is missing, though this stack had keys: put it back, or make other ones with: "
            f"todomq keys init (a stack without keys is meant? remove {store.note})"
        )
    store.remember()
    try:
        return store.server()
    except InvalidRequest as error:
        raise KeysUnusable(error.text) from None
