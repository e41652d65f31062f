"""Fuzzing: every decoder, every handler of every daemon, every socket, with random and mutated bytes (law 7).

``targets`` says what takes the bytes and what must hold then; ``world`` is a simulated stack with a stranger in it;
``shapes`` makes messages out of bytes; ``corpus`` keeps inputs that go far; ``guided`` runs one target under a fuzzer
that follows coverage (atheris); ``daemons`` sends to the sockets of real processes; ``__main__`` runs all of it for a
while: ``make fuzz MINUTES=60``. A few seconds of each target are part of ``make test``.
"""
