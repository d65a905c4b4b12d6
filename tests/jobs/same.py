"""Items and objects of the callable that are one object."""

UNSET = object()
MISSING = object()
CONFIG = {"depth": [1]}


class Row:
    """An item that is returned."""

    def __init__(self, number):
        self.number = number


def is_unset(item):
    return item is UNSET


def missing(_):
    return MISSING


def itself(item):
    return item


def held(item):
    return item, MISSING


def changed(item):
    item.number += 1
    return item


def reads(item):
    return item["config"] is CONFIG, item["config"]["depth"] is CONFIG["depth"], CONFIG


def default(item, unset=UNSET, *, missing=MISSING):
    return item is unset or item is missing
