"""Log records, from a worker's root logger to the handlers of the program.

A ``RecordSender`` is the handler of a worker's root logger. A logger to which code of the worker
has added handlers (an initializer, a module at its import) uses those; all other loggers that the
record passes use the handlers that they have in the parent. So each is used once.

Guarantees: the record keeps its time, process and thread; fields that do not pickle come as text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parallax._core.light_stdlib import dumps, loads
from parallax._core.plain_types import PLAIN_TYPES
from parallax._transport import codec

_formatter = logging.Formatter()


class RecordSender(logging.Handler):
    def __init__(self, send: Callable[[bytes], bool], *, adopt: bool) -> None:
        """Handle the records of all loggers; ``adopt``: in place of the program's handlers."""
        super().__init__()
        self._send = send
        self.adopted = adopt
        if adopt:
            for logger in _loggers():
                # The parent uses its own handlers, and its filters once.
                propagates = logger.propagate and logger.parent is not None
                logger.handlers[:] = [] if propagates or not logger.handlers else [self]
                logger.filters[:] = []
        if self not in logging.root.handlers:
            logging.root.addHandler(self)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """In this block ``basicConfig`` finds a root logger without handlers."""
        logging.root.removeHandler(self)
        try:
            yield
        finally:
            logging.root.addHandler(self)

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """No lock: a signal handler may log while a record is handled."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; in a fork of the worker use the handler of last resort."""
        try:
            data = pack(record, self._passed(record.name))
        except Exception:  # noqa: BLE001 - whatever its arguments do when they are formatted
            self.handleError(record)
            return
        last = logging.lastResort
        if not self._send(data) and last is not None and record.levelno >= last.level:
            last.handle(record)

    def _passed(self, name: str) -> list[str]:
        """The loggers with handlers of the worker that a record of this logger passes."""
        found = logging.root.manager.loggerDict.get(name, logging.root)
        logger = found if isinstance(found, logging.Logger) else logging.root
        silent = (RecordSender, logging.NullHandler)
        passed = []
        while logger is not None:
            if any(not isinstance(handler, silent) for handler in logger.handlers):
                passed.append(logger.name)
            if not logger.propagate:
                break
            logger = logger.parent  # type: ignore[assignment]
        return passed


def _loggers() -> Iterator[logging.Logger]:
    yield logging.root
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def pack(record: logging.LogRecord, passed: list[str]) -> bytes:
    fields = dict(record.__dict__)
    args = fields["args"]
    if type(fields["msg"]) is not str or not (
        args is None or (type(args) is tuple and all(type(arg) in PLAIN_TYPES for arg in args))
    ):
        fields["msg"], fields["args"] = record.getMessage(), None
    if fields["exc_info"]:
        fields["exc_text"] = fields["exc_text"] or _formatter.formatException(fields["exc_info"])
    fields["exc_info"] = None
    odd: dict[str, tuple[bytes | None, str]] = {}
    for name, value in list(fields.items()):
        if type(value) not in PLAIN_TYPES and name != "args":
            odd[name] = _packed(fields.pop(name))
    return dumps((fields, odd, passed), 5)


def _packed(value: Any) -> tuple[bytes | None, str]:
    """The pickle of a value, if it has one, and the text that replaces it otherwise."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - whatever a __repr__ raises
        text = f"<{type(value).__qualname__}, whose repr raised {type(error).__name__}>"
    try:
        encoded = codec.encode_reply(value)
    except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
        return None, text
    return None if encoded.buffers else encoded.payload, text


def unpack(data: Any) -> tuple[logging.LogRecord, list[str]]:
    """Decode a record, and the names of the loggers whose handlers have had it."""
    fields, odd, passed = loads(data)
    for name, (packed, text) in odd.items():
        fields[name] = text
        if packed is not None:
            try:
                fields[name] = codec.decode(packed)
            except Exception:  # noqa: BLE001 - a class that only the worker knows
                continue
    record = logging.makeLogRecord({})
    # Relative to the start of this process.
    fields["relativeCreated"] = record.relativeCreated + (fields["created"] - record.created) * 1e3
    record.__dict__.update(fields)
    return record, passed


def replay(record: logging.LogRecord, passed: list[str]) -> None:
    """Pass a record to the filters and handlers of this process; see ``unpack``."""
    logger = logging.getLogger(record.name)
    if not passed:
        logger.handle(record)
        return
    if logger.disabled:
        return
    found: Any = logger.filter(record)
    if not found:
        return
    if found is not True:  # a filter may return another record, from Python 3.12 on
        record = found
    each: logging.Logger | None = logger
    while each is not None:
        for handler in list(each.handlers) if each.name not in passed else ():
            if record.levelno >= handler.level:
                handler.handle(record)
        each = each.parent if each.propagate else None
