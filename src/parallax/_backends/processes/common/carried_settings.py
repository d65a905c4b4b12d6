"""Settings of libraries that items depend on: what to read, how to set it, what is usual.

Guarantees: only modules that are loaded are asked, and nothing is imported; in a worker a setting
waits until its module is imported, and one that the program has taken back is taken back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from parallax._backends.processes.common.process_identity import when_imported
from parallax._core.light_stdlib import Any, NamedTuple
from parallax._transport import codec

#: A setting that has no usual value travels whenever its module is loaded.
ALWAYS = object()


class Setting(NamedTuple):
    """One setting: of which module, how to read and set it, and its value in a fresh process."""

    module: str
    get: Callable[[Any], Any]
    set: Callable[[Any, Any], object]
    usual: Any = None


def attribute(module: str, path: str, usual: Any = None) -> Setting:
    *holders, name = path.split(".")

    def holder(value: Any) -> Any:
        for each in holders:
            value = getattr(value, each)
        return value

    return Setting(
        module,
        lambda m: getattr(holder(m), name),
        lambda m, value: setattr(holder(m), name, value),
        usual,
    )


def differences(found: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in found.items() if k in usual and v != usual[k]}


_PRINTING = {
    "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False,
    "linewidth": 75, "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None,
    "legacy": False,
}  # fmt: skip
_SKLEARN = {
    "assume_finite": False, "working_memory": 1024, "print_changed_only": True,
    "display": "diagram", "array_api_dispatch": False, "transform_output": "default",
    "enable_metadata_routing": False, "skip_parameter_validation": False,
}  # fmt: skip
_NAMESPACES = {
    "http://www.w3.org/XML/1998/namespace": "xml",
    "http://www.w3.org/1999/xhtml": "html",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "http://schemas.xmlsoap.org/wsdl/": "wsdl",
    "http://www.w3.org/2001/XMLSchema": "xs",
    "http://www.w3.org/2001/XMLSchema-instance": "xsi",
    "http://purl.org/dc/elements/1.1/": "dc",
}
_CATEGORIES = ("LC_COLLATE", "LC_MONETARY", "LC_NUMERIC", "LC_TIME")
_JSON_METHODS = ("default", "encode", "iterencode")
_RC_KEPT = frozenset({"backend", "backend_fallback"})


def _set_namespaces(module: Any, value: dict[str, str]) -> None:
    module._namespace_map.clear()
    module._namespace_map.update(value)


def _types(module: Any) -> dict[str, str]:
    usual = module._types_map_default
    return {k: v for k, v in module.types_map.items() if usual.get(k) != v} if module.inited else {}


def _set_types(module: Any, value: dict[str, str]) -> None:
    for ending in _types(module).keys() - value.keys():
        module._db.types_map[True].pop(ending, None)
    for ending, kind in value.items():
        module.add_type(kind, ending)


def _set_locale(module: Any, value: dict[str, str]) -> None:
    for name in _CATEGORIES:
        module.setlocale(getattr(module, name), value.get(name, "C"))


def _pandas_options(_: Any) -> dict[str, Any]:
    config = sys.modules["pandas._config.config"]
    found = {}
    for key, option in config._registered_options.items():
        value = config._global_config
        for part in key.split("."):
            value = value[part]
        # Not by the public function, which takes ten times as long.
        if value is not option.defval and value != option.defval:
            found[key] = value
    hidden = config._deprecated_options if found else ()
    return {key: value for key, value in found.items() if key not in hidden}


def _set_pandas_options(module: Any, value: dict[str, Any]) -> None:
    known = getattr(sys.modules["pandas._config.config"], "_registered_options", {})
    for key in _pandas_options(module).keys() | value.keys():
        module.set_option(key, value[key] if key in value else known[key].defval)


def _accessors(module: Any) -> dict[str, dict[str, Any]]:
    found = {}
    for name in ("DataFrame", "Series", "Index"):
        kind = getattr(module, name)
        entries = {each: vars(kind).get(each) for each in kind._accessors}
        classes = {k: getattr(v, "_accessor", None) for k, v in entries.items()}
        own = {k: v for k, v in classes.items() if isinstance(v, type)}
        own = {k: v for k, v in own.items() if not v.__module__.startswith("pandas.")}
        if own:
            found[name] = own
    return found


def _set_accessors(module: Any, value: dict[str, dict[str, Any]]) -> None:
    for name, kinds in value.items():
        register = getattr(module.api.extensions, f"register_{name.lower()}_accessor")
        for each, kind in kinds.items():
            if each not in getattr(module, name)._accessors:
                register(each)(kind)


def _rc(module: Any) -> dict[str, Any]:
    found, usual = module.rcParams, module.rcParamsDefault
    keys = [key for key in dict.keys(found) if key not in _RC_KEPT]
    return {k: v for k in keys if (v := dict.__getitem__(found, k)) != usual.get(k, v)}


def _set_rc(module: Any, value: dict[str, Any]) -> None:
    usual = {key: module.rcParamsDefault[key] for key in _rc(module)}
    module.rcParams.update({**usual, **value})


def _patched(module: Any) -> dict[str, Any]:
    own = vars(module.JSONEncoder)
    return {k: own[k] for k in _JSON_METHODS if own[k].__module__ != "json.encoder"}


def _patch(module: Any, value: dict[str, Any]) -> None:
    for name in _JSON_METHODS:
        own = _unpatched.setdefault(name, vars(module.JSONEncoder)[name])
        setattr(module.JSONEncoder, name, value.get(name, own))


#: methods of the encoder of JSON as they were.
_unpatched: dict[str, Any] = {}

#: The table, in the order in which settings are made.
SETTINGS: list[Setting] = [
    Setting("csv", lambda m: m.field_size_limit(), lambda m, v: m.field_size_limit(v), 131072),
    Setting("socket", lambda m: m.getdefaulttimeout(), lambda m, v: m.setdefaulttimeout(v)),
    attribute("tempfile", "tempdir"),
    Setting(
        "xml.etree.ElementTree", lambda m: dict(m._namespace_map), _set_namespaces, _NAMESPACES
    ),
    Setting("mimetypes", _types, _set_types, {}),
    Setting("calendar", lambda m: m.firstweekday(), lambda m, v: m.setfirstweekday(v), 0),
    Setting(
        "locale",
        lambda m: {n: m.setlocale(getattr(m, n)) for n in _CATEGORIES},
        _set_locale,
        dict.fromkeys(_CATEGORIES, "C"),
    ),
    Setting("threading", lambda m: m.stack_size(), lambda m, v: m.stack_size(v), 0),
    Setting("json.encoder", _patched, _patch, {}),
    Setting(
        "numpy",
        lambda m: differences(m.get_printoptions(), _PRINTING),
        lambda m, v: m.set_printoptions(**{**_PRINTING, **v}),
        {},
    ),
    Setting("pandas", _pandas_options, _set_pandas_options, {}),
    Setting("pandas", _accessors, _set_accessors, {}),
    attribute("PIL.Image", "MAX_IMAGE_PIXELS", 1024 * 1024 * 1024 // 4 // 3),
    attribute("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", usual=False),
    Setting("matplotlib", _rc, _set_rc, {}),
    Setting(
        "sklearn",
        lambda m: differences(m.get_config(), _SKLEARN),
        lambda m, v: m.set_config(**{**differences(m.get_config(), _SKLEARN), **_SKLEARN, **v}),
        {},
    ),
    Setting(
        "xarray.core.options", lambda m: dict(m.OPTIONS), lambda m, v: m.OPTIONS.update(v), ALWAYS
    ),
    Setting(
        "torch",
        lambda m: str(m.get_default_dtype()).partition(".")[2],
        lambda m, v: m.set_default_dtype(getattr(m, v)),
        "float32",
    ),
    Setting(
        "torch",
        lambda m: m.are_deterministic_algorithms_enabled(),
        lambda m, v: m.use_deterministic_algorithms(v),
        usual=False,
    ),
]


#: those of the program.
_added: list[Setting] = []


def carry_setting(
    module: str, get: Callable[[Any], Any], put: Callable[[Any, Any], object], usual: Any = None
) -> None:
    """Have worker processes take over one more setting of a library.

        parallax.carry_setting("shapes", lambda m: m.get_unit(), lambda m, v: m.set_unit(v), "mm")

    It is read whenever workers get work, if the module is loaded, and set in workers that have
    another one, as soon as they import the module. Many libraries are known: see docs/engine.md.

    Args:
        module: the name of the module; it is passed to both functions.
        get: returns the present value, which must be picklable.
        put: takes the module and a value, and makes it the present one.
        usual: the value in a fresh process, which is not sent.

    Raises:
        TypeError: the name is no text, or one of the functions cannot be called.
    """
    given: tuple[Any, ...] = module, get, put
    if not isinstance(given[0], str) or not all(map(callable, given[1:])):
        raise TypeError("carry_setting() takes the name of a module and two functions")
    _added[:] = [each for each in _added if (each.module, each.get) != (module, get)]
    _added.append(Setting(module, get, put, usual))


def library_settings() -> dict[int, bytes]:
    """The settings that are not the usual ones, encoded, by their number in the table."""
    found = {}
    for number, setting in enumerate([*SETTINGS, *_added]):
        module = sys.modules.get(setting.module)
        if module is None:
            continue
        try:
            value = setting.get(module)
            if setting.usual is ALWAYS or value != setting.usual:
                known = number < len(SETTINGS)
                parts = value if known else (*setting[:3], value)
                found[number] = codec.encode(parts, shared=True).payload
        except Exception:  # noqa: BLE001 - another version of it, or half imported; or no pickle
            continue
    return found


class LibrarySettings:
    def __init__(self) -> None:
        self._wanted: dict[int, bytes] = {}
        self._settings = dict(enumerate(SETTINGS))
        #: what a setting was before.
        self._before: dict[int, Any] = {}

    def apply(self, wanted: dict[int, bytes]) -> None:
        """Make these settings, and take others back; those of modules that come later, then."""
        last, self._wanted = self._wanted, wanted
        for number in sorted(last.keys() | wanted.keys()):
            if last.get(number) == wanted.get(number):
                continue
            if number >= len(SETTINGS) and number in wanted:
                try:
                    module, get, put, _ = codec.decode(wanted[number])
                except Exception:  # noqa: BLE001 - functions of a module that is not here
                    continue
                self._settings[number] = Setting(module, get, put)
            name = self._settings[number].module
            when_imported(name, self._make)
            if name in sys.modules:
                self._one(number)

    def _make(self, module: Any) -> None:
        for number in self._wanted:
            if number in self._settings and self._settings[number].module == module.__name__:
                self._one(number)

    def _one(self, number: int) -> None:
        setting = self._settings[number]
        module = sys.modules[setting.module]
        try:
            if number in self._wanted:
                self._before.setdefault(number, setting.get(module))
                found = codec.decode(self._wanted[number])
                setting.set(module, found if number < len(SETTINGS) else found[3])
            elif number in self._before:
                setting.set(module, self._before[number])
        except Exception:  # noqa: BLE001 - another version of it, or a value of the main script's
            return
