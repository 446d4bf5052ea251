"""The files that put the server elsewhere, checked by the tools made for them, and by what the server takes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from stillroom.cli.app import make_app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINER = (DEPLOY / "Containerfile").read_text("utf-8")
UNIT = (DEPLOY / "stillroom.service").read_text("utf-8")
EXPOSED = "15"
"""Of the tenths by which systemd counts what a service may do: of 100, where 100 is all."""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def commands() -> dict[str, list[str]]:
    """What each file starts, without the program's name, as the server's arguments."""
    entry, default = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", CONTAINER, re.MULTILINE)[0]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entry == ["stillroom", "serve"]
    unit = shlex.split(re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", UNIT, re.MULTILINE)[0].replace("\\\n", " "))
    assert unit[:2] == ["/opt/stillroom/bin/stillroom", "serve"]
    containers = {name: pod(name)["containers"][0]["args"] for name in ("kubernetes.yaml", "kserve.yaml")}
    return {"Containerfile": default, "stillroom.service": unit[2:], **containers}


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text("utf-8")))


def pod(name: str) -> dict:
    first = documents(name)[0]["spec"]
    return first["template"]["spec"] if "template" in first else first["predictor"]


@pytest.mark.parametrize("name", ["Containerfile", "stillroom.service", "kubernetes.yaml", "kserve.yaml"])
def test_what_they_start_is_what_the_server_takes_and_needs_a_token(name):
    _, bound, _ = make_app().parse_args(["serve", *commands()[name]], print_error=False, exit_on_error=False)
    given = bound.arguments
    assert given["host"] == "0.0.0.0"
    assert given["token_file"].name == "token"
    assert re.fullmatch(r"(?:stillroom=)?/(?:model|srv/stillroom)/student\.onnx", given["runs"][0])


def test_the_container_is_as_hadolint_likes_it():
    if not shutil.which("hadolint"):
        pytest.skip("hadolint is not installed")
    checked = run("hadolint", DEPLOY / "Containerfile")
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_container_runs_as_nobody_with_what_a_device_needs_and_knows_its_health():
    assert re.findall(r"^USER (.*)$", CONTAINER, re.MULTILINE) == ["10001:10001"]
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", CONTAINER, re.MULTILINE)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known) - {"train"}
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINER, re.MULTILINE)[0].split():
        assert (ROOT / copied).exists()
        assert f"!{copied}" in (ROOT / ".dockerignore").read_text("utf-8").splitlines()


def test_the_health_check_tells_a_server_that_answers_from_none(server):
    (check,) = re.findall(r"CMD (\[\"python\", .*\])", CONTAINER)
    _, *arguments = json.loads(check)
    (url,) = re.findall(r"HEALTH=(\S+)", CONTAINER)
    for port, code in ((server.port, 0), (1, 1)):
        asked = subprocess.run(
            [sys.executable, *arguments], env={"HEALTH": url.replace(":8000", f":{port}")}, capture_output=True
        )
        assert asked.returncode == code


def test_the_unit_is_valid_and_hardened(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "stillroom.service"
    unit.write_text(UNIT.replace("/opt/stillroom/bin/stillroom", sys.executable))
    checked = run("systemd-analyze", "verify", unit)
    assert (checked.returncode, checked.stderr) == (0, "")
    exposed = run("systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSED}", unit)
    assert exposed.returncode == 0, exposed.stdout


def test_an_open_unit_would_be_noticed(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "stillroom.service"
    unit.write_text(f"[Service]\nExecStart={sys.executable}\n")
    assert run("systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSED}", unit).returncode != 0


def test_the_manifest_is_as_kubernetes_has_it():
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    version = validate.latest_version()
    for document in documents("kubernetes.yaml"):
        validate.validate(document, version, strict=True)
    wrong = documents("kubernetes.yaml")[0]
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, version, strict=True)


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kserve.yaml"])
def test_pods_may_do_nothing_but_answer(name):
    spec = pod(name)
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {one["name"]: one for one in container["volumeMounts"]}
    assert {name for name, one in mounted.items() if one.get("readOnly")} == {"model", "token"}
    assert set(mounted) == {one["name"] for one in spec["volumes"]}
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"


def test_whoever_ends_it_waits_for_what_it_has_accepted():
    from stillroom.serving.settings import ServeSettings

    drains = ServeSettings.__dataclass_fields__["drain_seconds"].default
    waits = [int(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)[0])]
    waits += [pod(name)["terminationGracePeriodSeconds"] for name in ("kubernetes.yaml", "kserve.yaml")]
    assert all(seconds > drains for seconds in waits)


def test_the_services_of_the_manifest_fit_together():
    found = {one["kind"]: one for one in documents("kubernetes.yaml")}
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    (port,) = found["Service"]["spec"]["ports"]
    assert port["targetPort"] == pod("kubernetes.yaml")["containers"][0]["ports"][0]["name"]
