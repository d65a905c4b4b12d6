"""What operations of the standard library and of well-known packages do to their operands.

Plain tables, keyed by the names of methods and functions. Installed packages are not analysed:
what is not listed here counts as harmless, and an entry applies only to the types it is listed for.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Final


class Mutation(NamedTuple):
    """What a mutating operation does.

    `shape` says how much order and earlier content matter: `slot` fills a named place, `grow` adds
    something, `take` changes what the next caller will see.
    """

    shape: str
    how: str


_GROW = Mutation("grow", "appends to")
_ADD = Mutation("grow", "adds to")
_EXTEND = Mutation("grow", "extends")
_PUT = Mutation("grow", "puts into")
_WRITE = Mutation("grow", "writes to")
_SLOT = Mutation("slot", "assigns an item of")
_FILL = Mutation("slot", "fills a slot of")
_UPDATE = Mutation("slot", "updates")
_REMOVE = Mutation("take", "removes from")
_TAKE = Mutation("take", "takes from")
_REORDER = Mutation("take", "reorders")
_CLEARS = Mutation("take", "clears")
_OVERWRITE = Mutation("slot", "overwrites")
_READS_ON = Mutation("take", "reads on in")
_FIT = Mutation("take", "fits")

# Of every type that is not the program's own, and of values of unknown type.
MUTATING_METHODS: Final[dict[str, Mutation]] = {
    "append": _GROW, "appendleft": _GROW, "extend": _EXTEND, "extendleft": _EXTEND,
    "insert": Mutation("grow", "inserts into"), "add": _ADD, "push": _PUT, "put": _PUT,
    "put_nowait": _PUT, "update": _UPDATE, "setdefault": _FILL, "__setitem__": _SLOT,
    "__setattr__": Mutation("slot", "sets an attribute of"), "__delitem__": _REMOVE,
    "__delattr__": _REMOVE, "remove": _REMOVE, "discard": _REMOVE, "pop": _TAKE, "popleft": _TAKE,
    "popitem": _TAKE, "clear": _CLEARS, "sort": _REORDER, "reverse": _REORDER,
    "move_to_end": _REORDER, "intersection_update": _REMOVE, "difference_update": _REMOVE,
    "symmetric_difference_update": _UPDATE, "subtract": Mutation("take", "subtracts from"),
    "frombytes": _EXTEND, "fromlist": _EXTEND, "__iadd__": _EXTEND, "__ior__": _UPDATE,
    "write": _WRITE, "writelines": _WRITE, "writerow": _WRITE, "writerows": _WRITE,
    "__next__": _TAKE, "send": _TAKE, "fit": _FIT, "partial_fit": _FIT, "fit_transform": _FIT,
    "set_params": Mutation("take", "sets parameters of"), "task_done": _TAKE,
    "sendall": _WRITE,
}  # fmt: skip

# How a generator of random numbers is used.
DRAWS: Final = "draws from"
_QUEUE = {"get": _TAKE, "get_nowait": _TAKE}
_FILE = dict.fromkeys(
    ("read", "readline", "readlines", "read1", "readinto", "seek", "truncate", "readinto1"),
    _READS_ON,
)
_CODEC = dict.fromkeys(("compress", "decompress", "flush", "encode", "decode"), _READS_ON)
_RANDOM = dict.fromkeys(
    (
        "random", "randint", "randrange", "getrandbits", "choice", "choices", "sample", "shuffle",
        "uniform", "gauss", "normalvariate", "triangular", "betavariate", "expovariate",
        "gammavariate", "lognormvariate", "paretovariate", "vonmisesvariate", "weibullvariate",
        "randbytes", "binomialvariate", "seed", "setstate", "integers", "normal",
        "standard_normal", "permutation", "permuted", "bytes", "exponential", "poisson",
        "binomial", "rand", "randn", "random_sample", "multivariate_normal", "beta", "gamma",
        "geometric", "lognormal", "chisquare", "dirichlet", "laplace", "logistic", "pareto",
        "standard_exponential", "standard_t", "weibull", "zipf", "multinomial", "spawn",
    ),
    Mutation("take", DRAWS),
)  # fmt: skip

# Further ones of single classes and their subclasses: (top-level module, class name).
TYPED_METHODS: Final[dict[tuple[str, str], dict[str, Mutation]]] = {
    ("queue", "Queue"): _QUEUE,
    ("queue", "SimpleQueue"): _QUEUE,
    ("multiprocessing", "Queue"): _QUEUE,
    ("asyncio", "Queue"): {"get_nowait": _TAKE},
    ("io", "_IOBase"): _FILE,
    ("random", "Random"): _RANDOM,
    ("numpy", "Generator"): _RANDOM,
    ("numpy", "RandomState"): _RANDOM,
    ("threading", "Event"): {"set": Mutation("slot", "sets")},
    ("collections", "deque"): {"rotate": _REORDER},
    ("array", "array"): {"byteswap": _OVERWRITE, "fromfile": _EXTEND, "fromunicode": _EXTEND},
    ("xml", "Element"): {"set": _SLOT},
    ("configparser", "RawConfigParser"): {"set": _SLOT, "read": _UPDATE, "read_dict": _UPDATE},
    ("contextvars", "ContextVar"): {},
    ("tarfile", "TarFile"): dict.fromkeys(("addfile", "add"), _ADD) | {"next": _TAKE},
    ("zipfile", "ZipFile"): dict.fromkeys(("write", "writestr", "mkdir"), _WRITE),
    ("zlib", "Compress"): _CODEC,
    ("zlib", "Decompress"): _CODEC,
    ("bz2", "BZ2Compressor"): _CODEC,
    ("bz2", "BZ2Decompressor"): _CODEC,
    ("lzma", "LZMACompressor"): _CODEC,
    ("lzma", "LZMADecompressor"): _CODEC,
    ("codecs", "IncrementalEncoder"): _CODEC,
    ("codecs", "IncrementalDecoder"): _CODEC,
    ("multibytecodec", "MultibyteIncrementalDecoder"): _CODEC,
    ("multibytecodec", "MultibyteIncrementalEncoder"): _CODEC,
    ("pickle", "Pickler"): {"dump": _WRITE},
    ("pickle", "Unpickler"): {"load": _READS_ON},
    ("sched", "scheduler"): {"enter": _ADD, "enterabs": _ADD, "cancel": _REMOVE, "run": _TAKE},
    ("difflib", "SequenceMatcher"): dict.fromkeys(("set_seq1", "set_seq2", "set_seqs"), _OVERWRITE),
    ("mmap", "mmap"): {"write_byte": _WRITE, "move": _OVERWRITE, **_FILE},
    ("numpy", "SeedSequence"): {"spawn": Mutation("take", DRAWS)},
    ("logging", "Logger"): dict.fromkeys(
        ("setLevel", "addHandler", "removeHandler", "addFilter", "removeFilter"),
        Mutation("take", "changes"),
    ),
}  # fmt: skip

# Packages of which only the methods listed change anything, instead of MUTATING_METHODS.
PACKAGE_METHODS: Final[dict[str, dict[str, Mutation]]] = {
    "numpy": {
        "fill": _OVERWRITE, "sort": _REORDER, "resize": _OVERWRITE, "put": _SLOT,
        "partition": _REORDER, "itemset": _SLOT, "setfield": _SLOT, "setflags": _SLOT,
        "__setitem__": _SLOT, "__iadd__": _OVERWRITE,
    },
    "pandas": {
        "update": _UPDATE, "insert": Mutation("grow", "inserts into"), "pop": _TAKE,
        "__setitem__": _SLOT,
    },
    "PIL": {
        "paste": _OVERWRITE, "putpixel": _SLOT, "putdata": _OVERWRITE, "putalpha": _OVERWRITE,
        "putpalette": _OVERWRITE, "alpha_composite": _OVERWRITE, "thumbnail": _OVERWRITE,
        "seek": _READS_ON, "text": _OVERWRITE, "line": _OVERWRITE, "rectangle": _OVERWRITE,
        "polygon": _OVERWRITE, "ellipse": _OVERWRITE, "point": _OVERWRITE,
    },
    "torch": {}, "jax": {}, "jaxlib": {}, "polars": {}, "tensorflow": {}, "pyarrow": {},
    "scipy": {"__setitem__": _SLOT}, "requests": {}, "httpx": {}, "aiohttp": {}, "boto3": {},
    "botocore": {}, "sympy": {}, "logging": {}, "pathlib": {}, "subprocess": {},
    "threading": {}, "concurrent": {}, "selectors": {}, "contextvars": {}, "sqlalchemy": {
        "add": _ADD, "append": _GROW, "remove": _REMOVE,
    },
}  # fmt: skip

# Methods that return what the receiver holds.
GETTERS: Final = frozenset(
    {"get", "setdefault", "pop", "popitem", "popleft", "__getitem__", "get_nowait", "peek"}
)
# Methods and functions whose result is, or shares the memory of, the receiver or first argument.
ALIASES: Final = frozenset({
    "reshape", "ravel", "view", "squeeze", "transpose", "swapaxes", "diagonal", "__iter__",
    "__enter__", "cast", "toreadonly", "getbuffer", "__iadd__", "detach", "numpy", "asarray",
    "asanyarray", "ascontiguousarray", "asfortranarray", "require", "atleast_1d",
    "atleast_2d", "broadcast_to", "expand_dims", "moveaxis", "frombuffer", "memoryview", "next",
    "iter", "min", "max", "reduce", "cast_to", "identity", "getitem", "nlargest", "nsmallest",
})  # fmt: skip

# Functions of installed modules that change an argument: the argument's index, and how.
ARGUMENT_CHANGES: Final[dict[tuple[str, str], tuple[int, Mutation]]] = {
    ("heapq", "heappush"): (0, _PUT), ("heapq", "heappop"): (0, _TAKE),
    ("heapq", "heapify"): (0, _REORDER), ("heapq", "heapreplace"): (0, _TAKE),
    ("heapq", "heappushpop"): (0, _TAKE), ("bisect", "insort"): (0, _PUT),
    ("bisect", "insort_right"): (0, _PUT), ("bisect", "insort_left"): (0, _PUT),
    ("random", "shuffle"): (0, _REORDER),
    ("builtins", "setattr"): (0, MUTATING_METHODS["__setattr__"]),
    ("builtins", "delattr"): (0, _REMOVE), ("builtins", "next"): (0, _TAKE),
    ("operator", "setitem"): (0, _SLOT), ("operator", "delitem"): (0, _REMOVE),
    ("operator", "iadd"): (0, _EXTEND), ("operator", "iconcat"): (0, _EXTEND),
    ("operator", "ior"): (0, _UPDATE), ("operator", "isub"): (0, _UPDATE),
    ("operator", "imul"): (0, _UPDATE), ("numpy", "copyto"): (0, _OVERWRITE),
    ("numpy", "put"): (0, _SLOT), ("numpy", "place"): (0, _SLOT),
    ("numpy", "putmask"): (0, _SLOT), ("numpy", "fill_diagonal"): (0, _SLOT),
    ("numpy", "put_along_axis"): (0, _SLOT), ("pickle", "dump"): (1, _WRITE),
    ("json", "dump"): (1, _WRITE), ("shutil", "copyfileobj"): (1, _WRITE),
    ("struct", "pack_into"): (1, _OVERWRITE),
}  # fmt: skip

_HANDLERS, _TIMER = ("changes", "the signal handlers"), ("sets", "the alarm")
_COLLECTOR, _LOGGING = ("changes", "the collector"), ("changes", "logging")
_CSV, _CODECS = ("changes", "settings of csv"), ("registers with", "codecs")
_TRACING = ("changes", "what traces the program")
_SIGNAL = ("sends", "a signal")
_INPUT, _NUMPY, _PANDAS = ("reads", "standard input"), ("changes", "NumPy"), ("changes", "pandas")

# Functions that change, or read on in, the state of the process: the verb and what is changed.
PROCESS_CALLS: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("builtins", "input"): _INPUT,
    ("getpass", "getpass"): _INPUT, ("fileinput", "input"): _INPUT,
    ("os", "dup2"): ("replaces", "a descriptor"), ("os", "nice"): ("changes", "the niceness"),
    ("resource", "setrlimit"): ("changes", "the limits"),
    ("time", "tzset"): ("changes", "the time zone"), ("torch", "manual_seed"): (DRAWS, "torch"),
    ("decimal", "setcontext"): ("changes", "the decimal context"),
    ("sys", "setrecursionlimit"): ("changes", "the recursion limit"),
    ("sys", "setswitchinterval"): ("changes", "the switch interval"),
    ("sys", "set_int_max_str_digits"): ("changes", "the limit of digits"),
    ("os", "sched_setaffinity"): ("changes", "the CPU affinity"), ("os", "kill"): _SIGNAL,
    ("signal", "raise_signal"): _SIGNAL, ("signal", "pthread_kill"): _SIGNAL,
    ("_thread", "interrupt_main"): _SIGNAL, ("sys", "audit"): ("calls", "audit hooks"),
    ("gc", "disable"): _COLLECTOR, ("gc", "enable"): _COLLECTOR, ("gc", "freeze"): _COLLECTOR,
    ("gc", "set_threshold"): _COLLECTOR, ("signal", "alarm"): _TIMER,
    ("signal", "setitimer"): _TIMER, ("signal", "pthread_sigmask"): _HANDLERS,
    ("signal", "siginterrupt"): _HANDLERS, ("signal", "set_wakeup_fd"): _HANDLERS,
    ("logging", "disable"): _LOGGING, ("logging", "basicConfig"): _LOGGING,
    ("logging", "captureWarnings"): _LOGGING, ("logging", "setLoggerClass"): _LOGGING,
    ("logging", "addLevelName"): _LOGGING, ("logging", "setLogRecordFactory"): _LOGGING,
    ("urllib", "install_opener"): ("changes", "the opener of urllib"),
    ("numpy", "set_printoptions"): _NUMPY, ("numpy", "seterr"): _NUMPY,
    ("pandas", "set_option"): _PANDAS, ("pandas", "reset_option"): _PANDAS,
    ("atexit", "register"): ("registers with", "atexit"),
    ("atexit", "unregister"): ("registers with", "atexit"),
    ("os", "putenv"): ("sets a variable of", "os.environ"),
    ("os", "unsetenv"): ("removes from", "os.environ"),
    ("os", "chdir"): ("changes", "the working directory"),
    ("os", "fchdir"): ("changes", "the working directory"),
    ("os", "umask"): ("changes", "the umask"),
    ("locale", "setlocale"): ("changes", "the locale"),
    ("signal", "signal"): ("changes", "the signal handlers"),
    ("csv", "register_dialect"): _CSV, ("csv", "unregister_dialect"): _CSV,
    ("csv", "field_size_limit"): _CSV, ("codecs", "register"): _CODECS,
    ("codecs", "unregister"): _CODECS, ("codecs", "register_error"): _CODECS,
    ("copyreg", "pickle"): ("registers with", "copyreg"),
    ("copyreg", "constructor"): ("registers with", "copyreg"),
    ("xml", "register_namespace"): ("registers with", "xml.etree.ElementTree"),
    ("mimetypes", "add_type"): ("registers with", "mimetypes"),
    ("tracemalloc", "start"): ("changes", "tracemalloc"),
    ("tracemalloc", "stop"): ("changes", "tracemalloc"), ("sys", "setprofile"): _TRACING,
    ("sys", "settrace"): _TRACING, ("threading", "settrace"): _TRACING,
    ("threading", "setprofile"): _TRACING, ("sys", "addaudithook"): _TRACING,
    ("socket", "setdefaulttimeout"): ("changes", "the default timeout of sockets"),
}  # fmt: skip
_STDOUT, _MOCK = ("replaces", "sys.stdout"), ("replaces", "what it patches")
_WARNINGS, _PLOT = ("changes", "the warnings filters"), ("uses", "pyplot's current figure")
# Functions and classes that change it for a while: harmless in a process of their own.
SWAPPING_CALLS: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("contextlib", "redirect_stdout"): _STDOUT,
    ("contextlib", "redirect_stderr"): ("replaces", "sys.stderr"),
    ("contextlib", "chdir"): ("changes", "the working directory"),
    ("warnings", "catch_warnings"): _WARNINGS, ("warnings", "simplefilter"): _WARNINGS,
    ("warnings", "filterwarnings"): _WARNINGS, ("warnings", "resetwarnings"): _WARNINGS,
    ("unittest", "patch"): _MOCK, ("unittest", "_patch_object"): _MOCK,
    ("unittest", "_patch_dict"): _MOCK, ("unittest", "_patch_multiple"): _MOCK,
    ("pytest", "MonkeyPatch"): _MOCK, ("freezegun", "freeze_time"): ("stops", "the clock"),
    ("time_machine", "travel"): ("changes", "the clock"), ("IPython", "capture_output"): _STDOUT,
    ("calendar", "different_locale"): ("changes", "the locale"),
    ("pandas", "option_context"): ("changes", "options of pandas"),
    ("matplotlib", "rc_context"): ("changes", "rcParams"),
    **{("matplotlib", name): _PLOT for name in (
        "figure", "plot", "subplots", "subplot", "savefig", "gca", "gcf", "clf", "close", "title",
        "hist", "scatter", "bar", "imshow", "xlabel", "ylabel", "legend",
    )},
}  # fmt: skip
# Calls for what this process alone will do later, in whatever order.
KEEPING_CALLS: Final = {("weakref", "finalize"): ("registers with", "weakref.finalize")}
# Functions of a descriptor, their first argument: harmless where the item has opened it.
DESCRIPTOR_CALLS: Final[dict[tuple[str, str], str]] = {
    **dict.fromkeys([(module, name) for module in ("posix", "nt", "os") for name in (
        "read", "readv", "write", "writev", "lseek", "ftruncate", "sendfile", "splice",
        "copy_file_range", "close",
    )], "take"),
    **dict.fromkeys([(module, name) for module in ("posix", "nt", "os") for name in (
        "pread", "preadv", "pwrite", "pwritev", "fstat", "fsync", "fdatasync", "dup",
    )], "keep"),
}  # fmt: skip
for (_module, _name), _change in tuple(PROCESS_CALLS.items()):
    if _module == "os":
        PROCESS_CALLS["posix", _name] = PROCESS_CALLS["nt", _name] = _change

# Calls that make a new container of the elements of their arguments.
CONTAINER_CALLS: Final = frozenset({
    "list", "tuple", "set", "frozenset", "dict", "sorted", "reversed", "deque", "defaultdict",
    "OrderedDict", "Counter", "filter", "chain", "islice", "copy", "cycle", "accumulate",
    "takewhile", "dropwhile", "groupby", "tee", "batched", "pairwise", "permutations",
    "combinations", "product", "repeat", "compress", "filterfalse", "starmap", "values",
    "from_iterable", "zip_longest", "combinations_with_replacement",
})  # fmt: skip

# Calls whose result depends on their arguments alone, so that a condition may contain them.
PURE_CALLS: Final = frozenset({
    "len", "isinstance", "issubclass", "hasattr", "getattr", "bool", "type", "callable", "int",
    "str", "float", "min", "max", "any", "all", "abs", "round", "sum", "id", "tuple", "sorted",
    "list", "set", "frozenset", "dict", "repr", "hash", "ord", "chr", "range", "enumerate",
    "zip", "reversed", "iter", "get", "keys", "values", "items", "getenv", "cast",
})  # fmt: skip

# The method behind an in-place operator; a type without it makes a new object instead.
INPLACE_METHODS: Final = {
    "+=": "__iadd__", "-=": "__isub__", "*=": "__imul__", "/=": "__itruediv__",
    "//=": "__ifloordiv__", "%=": "__imod__", "**=": "__ipow__", "@=": "__imatmul__",
    "<<=": "__ilshift__", ">>=": "__irshift__", "&=": "__iand__", "|=": "__ior__",
    "^=": "__ixor__",
}  # fmt: skip
