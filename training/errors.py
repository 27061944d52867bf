"""What went wrong, as one line that a person can act on.

LimnerError                        exit 1 on the command line, status 500 over HTTP
├── ConfigError                    a setting is unknown, out of range or contradicts another
├── DataError                      the images cannot be found or cannot be used
├── RunError                       a run folder is missing, in the way, unfinished or damaged
├── EvaluationError                too few pictures, another judge's features, a figure that is not finite
├── Interrupted                    Ctrl-C or SIGTERM; what was done is saved; exit 130
├── export.bundle.BundleError      a bundle is missing, damaged or of another schema
├── export.invariance.GateError    an engine's pictures are not the model's pictures
│   └── export.artifacts.Refused   ... with what each artifact failed
├── export.precision.PrecisionError    a graph cannot be had in another precision
├── export.engines.EngineError     an engine failed
│   └── export.engines.NonFinite   ... on some rows only
└── server.errors.RequestError     the request's fault or the server's state: problem+json with its status

Training is the lowest layer, so the root lives here; this module imports nothing.
"""


class LimnerError(Exception):
    """The root: `what` went wrong and where, and the `mend`, each a short sentence without line breaks."""

    exit_code = 1
    status = 500
    code = "internal"

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = " ".join(what.split())
        self.mend = " ".join(mend.split())
        super().__init__(f"{self.what}. {self.mend}" if self.mend else self.what)


def as_limner(error: LimnerError | OSError | MemoryError) -> LimnerError:
    """The same in one line. Of the system's errors its words say what and where: a full disk, a name too long."""
    if isinstance(error, LimnerError):
        return error
    if isinstance(error, MemoryError):
        return LimnerError("there is not enough memory", "Try it with more, or with less to do.")
    return LimnerError(f"{error.filename or 'the system'}: {error.strerror or error}", "Try another place.")


class ConfigError(LimnerError):
    code = "config"


class DataError(LimnerError):
    code = "data"


class RunError(LimnerError):
    code = "run"


class EvaluationError(LimnerError):
    code = "evaluation"


class Interrupted(LimnerError):
    exit_code = 130
    code = "interrupted"
