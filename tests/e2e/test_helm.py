"""The Helm chart: as Helm renders it, it is what Kubernetes takes, and runs commands with settings that there are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from tests.e2e.test_deploy import SETTINGS, parse

CHART: Final = Path(__file__).parents[2] / "deploy" / "helm" / "scalelite"
# The defaults, and everything on.
VALUES: Final[dict[str, list[str]]] = {"defaults": [], "all": ["-f", str(CHART / "ci" / "all-values.yaml")]}
# The oldest that the chart says it runs on, and the newest.
KUBERNETES: Final = ("1.27.0", "1.37.0")

pytestmark = [pytest.mark.needs("helm"), pytest.mark.shows("operations: a Helm chart")]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)


def rendered(*options: str) -> list[Any]:
    done = helm("template", "sl", str(CHART), *options)
    assert done.returncode == 0, done.stderr
    return [found for found in YAML(typ="safe").load_all(done.stdout) if found]


def of_kind(objects: list[Any], *kinds: str) -> dict[str, Any]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] in kinds}


def pods(objects: list[Any]) -> dict[str, Any]:
    """Return the templates of pods by the names of what makes them."""
    return {name: found["spec"]["template"] for name, found in of_kind(objects, "Deployment", "Job").items()}


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_nothing_wrong(values: str) -> None:
    done = helm("lint", "--strict", str(CHART), *VALUES[values])
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES)
def test_kubernetes_takes_every_object(values: str, version: str) -> None:
    from kubernetes_validate import validate

    objects = rendered(*VALUES[values], "--kube-version", version)
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(set(names)) == len(names) >= 6
    for found in objects:
        validate(found, version, strict=True)
    with pytest.raises(Exception, match="replica"):
        validate({**of_kind(objects, "Deployment")["sl-scalelite-api"], "spec": {"replica": 1}}, version, strict=True)


def test_pods_run_commands_with_settings_that_there_are() -> None:
    for values, more in (("defaults", {}), ("all", {"sl-scalelite-importer": "scalelite recordings watch"})):
        objects = rendered(*VALUES[values])
        commands = {name: parse(pod["spec"]["containers"][0]["args"]) for name, pod in pods(objects).items()}
        assert commands == {
            "sl-scalelite-migrate": "scalelite db migrate",
            "sl-scalelite-api": "scalelite serve",
            "sl-scalelite-poller": "scalelite poll",
            **more,
        }
        (settings,) = of_kind(objects, "ConfigMap").values()
        assert set(settings["data"]) <= SETTINGS
        assert settings["data"]["AUTO_MIGRATE"] == "false", "the job does"


def test_pods_are_of_an_ordinary_user_and_write_to_volumes_alone() -> None:
    image = (CHART.parents[2] / "Dockerfile").read_text()
    for pod in pods(rendered(*VALUES["all"])).values():
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert f"USER {spec['securityContext']['runAsUser']}\n" in image
        assert not spec["automountServiceAccountToken"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
        assert {"secretRef": {"name": "scalelite"}} in container["envFrom"]


def test_calls_find_their_pods_and_pods_their_budgets() -> None:
    objects = rendered(*VALUES["all"])
    labels = {name: pod["metadata"]["labels"].items() for name, pod in pods(objects).items()}

    def chosen(selector: dict[str, str]) -> list[str]:
        return [name for name, found in labels.items() if selector.items() <= found]

    (service,) = of_kind(objects, "Service").values()
    assert chosen(service["spec"]["selector"]) == ["sl-scalelite-api"]
    for name, budget in of_kind(objects, "PodDisruptionBudget").items():
        assert chosen(budget["spec"]["selector"]["matchLabels"]) == [name]
    for name, found in of_kind(objects, "Deployment").items():
        assert chosen(found["spec"]["selector"]["matchLabels"]) == [name]
    (ingress,) = of_kind(objects, "Ingress").values()
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert {path["backend"]["service"]["name"] for path in paths} == {service["metadata"]["name"]}
    assert not [path for path in paths if "/metrics".startswith(path["path"])]
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["sl.example.com", "*.sl.example.com"]
    api = pods(objects)["sl-scalelite-api"]["spec"]["containers"][0]
    assert api["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert api["livenessProbe"]["httpGet"]["path"] == "/health/live"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ingress.enabled=true", "urlHost"),
        ("recordings.enabled=true", "existingClaim"),
        ("existingSecret=", "existingSecret"),
        ("api.replica=3", "replica"),
        ("settings.WEB_CONCURRENCY=4", "WEB_CONCURRENCY"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(options: str, told: str) -> None:
    done = helm("template", "sl", str(CHART), "--set", options)
    assert done.returncode != 0
    assert told in done.stderr
