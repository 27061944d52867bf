"""An overlay in, where it names what limner has not: settings, flags, paths; and a drain cut short."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

import limner
from checks.overlay import DASHBOARD, SERVERS, Node, Overlay, Problem, containers, near, pods
from server.app import APIS
from server.settings import Settings
from server.workers import GRACE
from training.config import TrainConfig
from training.errors import ConfigError
from training.precedence import validated

PAGES = {"/", "/docs", "/openapi.json", "/playground", "/js", "/static-offline-docs"}  # of server/app.py
INSIDE = {"/healthz", "/readyz", "/metrics"}  # not for clients


def problems(overlay: Overlay) -> Iterator[Problem]:
    for check in (_settings, _commands, _probes, _drain, _routes):
        yield from check(overlay)


@cache
def paths() -> frozenset[str]:
    """What the server answers at, without what follows a parameter."""
    routes = [route for module in APIS for route in module.router.routes]
    return frozenset(PAGES | {getattr(route, "path").partition("/{")[0] for route in routes})  # noqa: B009


def _settings(overlay: Overlay) -> Iterator[Problem]:
    """Of each container: the names are settings, the values are ones that limner takes."""
    for each in overlay.of("ConfigMap"):
        if DASHBOARD in each["metadata"].get("labels", {}):
            continue
        for name in each.get("data", {}):
            if not name.startswith("LIMNER_"):
                yield overlay.problem(f"{name} is no setting of limner's.{near(name, _names(Settings))}", name)
    for _, template in pods(overlay):
        for container in containers(template["spec"]):
            given: dict[str, str] = {}
            for source in container.get("envFrom", []):
                settings = overlay.named("ConfigMap", source["configMapRef"]["name"]) or {}
                given |= settings.get("data", {})
            given |= {each["name"]: each.get("value", "") for each in container.get("env", [])}
            yield from _values(overlay, container, given)


def _values(overlay: Overlay, container: Node, given: dict[str, str]) -> Iterator[Problem]:
    schema, prefix = (Settings, "LIMNER_") if container["name"] in SERVERS else (TrainConfig, "LIMNER_TRAIN_")
    values: dict[str, str] = {}
    for name, value in given.items():
        if name in _names(schema):
            values[name.removeprefix(prefix).lower()] = value
        elif name.startswith("LIMNER_"):
            what = f"{container['name']} has no setting {name}.{near(name, _names(schema))}"
            yield overlay.problem(what, name)
    try:
        validated(schema, values)
    except ConfigError as error:
        wrong = [f"{prefix}{name.upper()}" for name, value in values.items() if f"({name}={value})" in error.what]
        yield overlay.problem(str(error), *[f"{name}={given[name]}" for name in wrong], *wrong)


def _names(schema: Any) -> set[str]:
    prefix = "LIMNER_" if schema is Settings else "LIMNER_TRAIN_"
    return {f"{prefix}{name.upper()}" for name in schema.model_fields}


def _commands(overlay: Overlay) -> Iterator[Problem]:
    """What a container gives to limner is a command of it, with options that it has."""
    commands: Any = typer.main.get_command(limner.app)
    for _, template in pods(overlay):
        for container in containers(template["spec"]):
            name, *rest = container.get("args") or ["serve"]
            if "command" in container:
                continue
            if name not in commands.commands:
                what = f"limner has no command '{name}'.{near(name, commands.commands)}"
                yield overlay.problem(what, f"- {name}", f'"{name}"')
                continue
            known = {option for parameter in commands.commands[name].params for option in parameter.opts}
            for option in [word.partition("=")[0] for word in rest if word.startswith("-")]:
                if option not in known:
                    yield overlay.problem(f"limner {name} has no option {option}.{near(option, known)}", option)


def _probes(overlay: Overlay) -> Iterator[Problem]:
    """Each server is asked whether it is there, at paths and at the port that it has."""
    for each, template in pods(overlay):
        for container in [one for one in containers(template["spec"]) if one["name"] in SERVERS]:
            if container["ports"][0]["containerPort"] != Settings.model_fields["port"].default:
                port = container["ports"][0]["containerPort"]
                yield overlay.problem(f"{container['name']} does not listen on port {port}", f"containerPort: {port}")
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind)
                if probe is None:
                    yield overlay.problem(f"{container['name']} of {each['kind']} has no {kind}", "name: server")
                elif (path := probe["httpGet"]["path"]) not in paths():
                    yield overlay.problem(f"{kind} asks {path}.{near(path, paths())}", f"path: {path}")


def _drain(overlay: Overlay) -> Iterator[Problem]:
    """The grace of a pod is longer than its wait, its drain, and the end of what is left after it."""
    for each, template in pods(overlay):
        pod = template["spec"]
        predictors = [one["spec"]["predictor"] for one in overlay.of("InferenceService")]
        holder = predictors[0] if each["kind"] == "ServingRuntime" and predictors else pod
        for container in [one for one in containers(pod) if one["name"] in SERVERS]:
            wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            data: Node = {}
            for source in container.get("envFrom", []):
                data |= (overlay.named("ConfigMap", source["configMapRef"]["name"]) or {}).get("data", {})
            data |= {one["name"]: one.get("value") for one in container.get("env", [])}
            drain = data.get("LIMNER_DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default)
            grace = holder.get("terminationGracePeriodSeconds", 30)
            try:
                needed = wait + float(drain) + GRACE
            except ValueError:
                continue  # _settings has said so
            if grace <= needed:
                what = f"a pod is killed after {grace} s, its wait, drain and end take {needed:.0f} s"
                yield overlay.problem(what, f"LIMNER_DRAIN_SECONDS={drain}", "terminationGracePeriodSeconds:")


def _routes(overlay: Overlay) -> Iterator[Problem]:
    """A gateway leads to all that clients ask for, and to nothing else."""
    routes = [rule for route in overlay.of("HTTPRoute") for rule in route["spec"]["rules"] if "backendRefs" in rule]
    led = {match["path"]["value"]: match["path"]["type"] for rule in routes for match in rule["matches"]}
    for path, kind in led.items():
        known = [each for each in paths() if _under(each, path, kind)]
        if not known or INSIDE.intersection(known):
            yield overlay.problem(
                f"a route leads to {path}, which is not for clients.{near(path, paths())}", f"value: {path}}}"
            )
    reached = {path for path in paths() if any(_under(path, top, kind) for top, kind in led.items())}
    for path in sorted(paths() - INSIDE - reached) if led else ():
        yield overlay.problem(f"no route leads to {path}", "- matches:")


def _under(path: str, top: str, kind: str) -> bool:
    return path == top or (kind == "PathPrefix" and path.startswith(f"{top}/"))
