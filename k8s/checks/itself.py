"""An overlay in, where one of its objects names what no other one is: selectors, ports, volumes, images."""

from collections.abc import Iterator

from checks.overlay import Node, Overlay, Problem, containers, line_of, pods

BARE = {"Namespace"}  # kinds that lie in no namespace
NAMED_BY = {"PersistentVolumeClaim": "claimName", "ServiceAccount": "serviceAccountName", "ServingRuntime": "runtime"}


def problems(overlay: Overlay) -> Iterator[Problem]:
    for check in (_namespaces, _selectors, _ports, _volumes, _references, _images, _targets, _autoscalers):
        yield from check(overlay)


def _namespaces(overlay: Overlay) -> Iterator[Problem]:
    for each in overlay.objects:
        name = each["metadata"]["name"]
        if each["kind"] not in BARE and "namespace" not in each["metadata"]:
            yield overlay.problem(
                f"{each['kind']} {name} lies in no namespace. Add `namespace:`.", "kind: Kustomization"
            )


def _selectors(overlay: Overlay) -> Iterator[Problem]:
    """Whoever selects pods selects some, also a Service of another one's."""
    labels = [template["metadata"].get("labels", {}) for _, template in pods(overlay)]
    selectors: list[tuple[Node, Node]] = []
    for each in overlay.objects:
        spec = each.get("spec", {})
        match each["kind"]:
            case "Service":
                selectors.append((each, spec["selector"]))
            case "Deployment" | "PodDisruptionBudget":
                selectors.append((each, spec["selector"]["matchLabels"]))
            case "NetworkPolicy":
                selectors.append((each, spec["podSelector"]["matchLabels"]))
        if each["kind"] == "Deployment":
            spread = spec["template"]["spec"].get("topologySpreadConstraints", [])
            selectors += [(each, constraint["labelSelector"]["matchLabels"]) for constraint in spread]
    for each, wanted in selectors:
        if not any(wanted and wanted.items() <= has.items() for has in labels):
            name = f"{each['kind']} {each['metadata']['name']}"
            known = {pair for has in labels for pair in has.items()}
            strange = [f"{key}: {value}" for key, value in wanted.items() if (key, value) not in known]
            yield overlay.problem(f"{name} selects no pod by {wanted}", *strange)


def _ports(overlay: Overlay) -> Iterator[Problem]:
    """A port's name is one of a container's; a route leads to a port of a Service."""
    known: set[str | int] = set()
    for _, template in pods(overlay):
        for container in containers(template["spec"]):
            ports = container.get("ports", [])
            own = {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
            known |= own
            for kind in [kind for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in container]:
                port = container[kind]["httpGet"]["port"]
                if port not in own:
                    yield overlay.problem(
                        f"{kind} of {container['name']} asks port {port}, which it has not", f"port: {port}"
                    )
    used = [
        (each, port["targetPort"], "targetPort") for each in overlay.of("Service") for port in each["spec"]["ports"]
    ]
    for each in overlay.of("NetworkPolicy"):
        rules = each["spec"].get("ingress", [])
        used += [(each, port["port"], "port") for rule in rules for port in rule.get("ports", [])]
    for each, port, key in used:
        if port not in known:
            what = f"{each['kind']} {each['metadata']['name']} names port {port}, which no container has"
            yield overlay.problem(what, f"{key}: {port}")
    for route in overlay.of("HTTPRoute"):
        for backend in [backend for rule in route["spec"]["rules"] for backend in rule.get("backendRefs", [])]:
            service = overlay.named("Service", backend["name"])
            if service is None or backend["port"] not in {port["port"] for port in service["spec"]["ports"]}:
                yield overlay.problem(
                    f"a route leads to {backend['name']}:{backend['port']}, which no Service is",
                    f"port: {backend['port']}",
                    kind="HTTPRoute",
                )


def _volumes(overlay: Overlay) -> Iterator[Problem]:
    for each, template in pods(overlay):
        there = {volume["name"] for volume in template["spec"].get("volumes", [])}
        for container in containers(template["spec"]):
            for name in {mount["name"] for mount in container.get("volumeMounts", [])} - there:
                what = f"{container['name']} of {each['metadata']['name']} mounts '{name}', which is no volume"
                yield overlay.problem(f"{what}. A component such as models-pvc brings it.", f"- name: {name}")


def _references(overlay: Overlay) -> Iterator[Problem]:
    """What an object names is in the overlay, too."""
    wanted: list[tuple[str, str]] = []
    for _, template in pods(overlay):
        spec = template["spec"]
        wanted += [("ServiceAccount", spec["serviceAccountName"])] if "serviceAccountName" in spec else []
        claims = [volume.get("persistentVolumeClaim") for volume in spec.get("volumes", [])]
        wanted += [("PersistentVolumeClaim", claim["claimName"]) for claim in claims if claim]
        sources = [source for container in containers(spec) for source in container.get("envFrom", [])]
        wanted += [("ConfigMap", source["configMapRef"]["name"]) for source in sources]
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        wanted += [("Deployment", each["spec"]["scaleTargetRef"]["name"]) for each in overlay.of(kind)]
    for route in overlay.of("HTTPRoute"):
        wanted += [("Gateway", parent["name"]) for parent in route["spec"]["parentRefs"]]
    for service in overlay.of("InferenceService"):
        model = service["spec"]["predictor"]["model"]
        wanted.append(("ServingRuntime", model["runtime"]))
        scheme, _, place = model["storageUri"].partition("://")
        wanted += [("PersistentVolumeClaim", place.partition("/")[0])] if scheme == "pvc" else []
    for kind, name in dict.fromkeys(wanted):
        if overlay.named(kind, name) is None:
            yield overlay.problem(f"there is no {kind} {name}", f"{NAMED_BY.get(kind, 'name')}: {name}", name)


def _images(overlay: Overlay) -> Iterator[Problem]:
    """kustomize says nothing where an entry of `images` is the name of none."""
    used = {container["image"] for _, template in pods(overlay) for container in containers(template["spec"])}
    entries = [(path, image) for path, content in overlay.kustomizations() for image in content.get("images", [])]
    renamed = {image["name"]: image.get("newName", image["name"]) for _, image in entries}
    for path, image in entries:
        name = image["name"]
        for _ in entries:  # an overlay may rename again what it builds on
            name = renamed.get(name, name)
        if not any(each.startswith((f"{name}:", f"{name}@")) for each in used):
            what = f"images: '{image['name']}' is the name of no image here. There is {', '.join(sorted(used))}."
            yield Problem(path, line_of(path, f"name: {image['name']}"), what)
    for image in sorted(used):
        if ":" not in image.rpartition("/")[2] and "@" not in image:
            yield overlay.problem(f"image '{image}' has no tag. Name the real one under `images:`.", f"image: {image}")


def _targets(overlay: Overlay) -> Iterator[Problem]:
    """kustomize says nothing where a patch's target is none."""
    for path, content in overlay.kustomizations():
        for target in [patch["target"] for patch in content.get("patches", []) if "target" in patch]:
            found = [
                each
                for each in overlay.of(target["kind"])
                if target.get("name", each["metadata"]["name"]) == each["metadata"]["name"]
            ]
            if not found:
                what = f"a patch is for {target['kind']} {target.get('name', '')}, which is not here"
                yield Problem(path, line_of(path, f"kind: {target['kind']}"), what)


def _autoscalers(overlay: Overlay) -> Iterator[Problem]:
    """One at most, and then nobody else says how many pods there are."""
    scalers = overlay.of("HorizontalPodAutoscaler") + overlay.of("ScaledObject")
    if len(scalers) > 1:
        yield overlay.problem("two autoscalers pull at one Deployment. Leave one out.", "autoscaling-")
    for scaler in scalers:
        name = scaler["spec"]["scaleTargetRef"]["name"]
        deployment = overlay.named("Deployment", name)
        if deployment is not None and "replicas" in deployment["spec"]:
            yield overlay.problem(f"`replicas` of {name} undoes at each apply what its autoscaler chose", "replicas:")
