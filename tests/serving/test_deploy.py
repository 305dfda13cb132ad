"""The files of deployment: each is valid for its own tool, and names only options and metrics that exist."""

import argparse
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from serving_process import ROOT

from serving import options
from serving.monitoring import Monitor
from system import cli

DEPLOY = ROOT / "deploy"
PROBES = {"/healthz", "/readyz"}


def needs(program: str):
    """Skips a test where a program is missing."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*line: str, cwd: Path = ROOT) -> str:
    ended = subprocess.run([*map(str, line)], cwd=cwd, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def check_command_line(arguments: list[str]) -> argparse.Namespace:
    """Parses arguments of serve.py; one that it does not know ends the test."""
    parser = cli.parser("serve.py")
    options.add_arguments(parser)
    found = parser.parse_intermixed_args(arguments)
    options._numbers(found)
    return found


def exposed() -> set[str]:
    """Every name in /metrics, those of the samples among them."""
    monitor = Monitor()
    pool = SimpleNamespace(pids=[1], count=1, model_info={"name": "a", "digest": "d"})
    monitor.watch({"classify": pool})
    names = set()
    for name, kind in re.findall(r"# TYPE (\w+) (\w+)", monitor.exposition().decode()):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def unit() -> dict[str, str]:
    lines = (DEPLOY / "serve.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def manifests() -> dict[str, dict]:
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def rules() -> list[dict]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return group["rules"]


def panels() -> list[dict]:
    return json.loads((DEPLOY / "dashboard.json").read_text())["panels"]


def test_command_lines_are_those_of_serve():
    """Guards against a unit, an image or a pod that ends at once, for an option was renamed."""
    python, script, *rest = shlex.split(unit()["ExecStart"])
    assert Path(python).name == "python" and (ROOT / script).is_file()
    check_command_line(rest)
    container = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    found = check_command_line(container["args"])
    assert found.metrics_token == "none" and found.host == "0.0.0.0"
    port = found.port
    assert [one["containerPort"] for one in container["ports"]] == [port]
    annotations = manifests()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port) and annotations["prometheus.io/path"] == "/metrics"
    steps = dict(re.findall(r"^(ENTRYPOINT|CMD|EXPOSE) (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert json.loads(steps["ENTRYPOINT"]) == ["python", "serve.py"] and int(steps["EXPOSE"]) == port
    assert check_command_line(json.loads(steps["CMD"])).host == "0.0.0.0"


def test_metrics_of_rules_dashboard_and_autoscaler_exist():
    """Guards against an alert that never fires and a panel that stays empty, for a metric was renamed."""
    known, used = exposed(), {}
    for rule in rules():
        used[rule["alert"]] = rule["expr"]
    for panel in panels():
        used[panel["title"]] = " ".join(target["expr"] for target in panel["targets"])
    (metric,) = [one["pods"] for one in manifests()["HorizontalPodAutoscaler"]["spec"]["metrics"] if "pods" in one]
    used["autoscaler"] = metric["metric"]["name"]
    for where, text in used.items():
        names = set(re.findall(r"\b(?:serve|process)_[a-z_]+", text))
        assert names and names <= known, (where, names - known)


def test_probes_and_selectors_fit_together():
    """Guards against probes of paths that need the token, and a service or budget that selects no pod."""
    found = manifests()
    template = found["Deployment"]["spec"]["template"]
    container, labels = template["spec"]["containers"][0], template["metadata"]["labels"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["path"] for probe in probes} == PROBES and {probe["port"] for probe in probes} == {"http"}
    assert found["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert found[kind]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    claim = template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]
    assert container["env"][0]["name"] == options.TOKEN_VARIABLE


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="kubernetes-validate is not installed"
)
def test_kubernetes_knows_every_field():
    """Guards against a field that is misspelt, or that a later version no longer has."""
    import kubernetes_validate

    for kind, one in manifests().items():
        try:
            kubernetes_validate.validate(one, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{kind}: {error}") from None


@needs("systemd-analyze")
def test_systemd_knows_every_line(tmp_path):
    """Guards against a line that systemd ignores, and a service that may do more than it needs."""
    # Its program is not there, as it will be on the machine that runs it.
    text = (DEPLOY / "serve.service").read_text()
    here = re.sub(r"/srv/classification\S*python", shutil.which("true"), text)
    (tmp_path / "serve.service").write_text(here)
    assert run("systemd-analyze", "verify", "--man=no", tmp_path / "serve.service") == ""
    shown = run("systemd-analyze", "security", "--offline=true", "--threshold=40", tmp_path / "serve.service")
    exposure = float(re.search(r"exposure level for serve.service: ([\d.]+)", shown)[1])
    assert exposure < 4 and f"exposure {exposure:g} of 10" in (ROOT / "docs" / "serve.md").read_text("utf-8")
    assert unit()["Type"] == "notify" and "MemoryDenyWriteExecute" not in unit()


TROUBLE = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: 'serve_requests_total{instance="a",path="/predict",code="200"}', values: "0+90x30"}
  - {series: 'serve_requests_total{instance="a",path="/predict",code="503"}', values: "0+10x30"}
  - {series: 'serve_requests_total{instance="a",path="/predict",code="500"}', values: "_x15 1x15"}
  - {series: 'serve_requests_total{instance="c",path="/readyz",code="503"}', values: "0+10x30"}
  - {series: 'serve_request_seconds_bucket{instance="a",path="/predict",le="1"}', values: "0+1x30"}
  - {series: 'serve_request_seconds_bucket{instance="a",path="/predict",le="5"}', values: "0+9x30"}
  - {series: 'serve_request_seconds_bucket{instance="a",path="/predict",le="+Inf"}', values: "0+9x30"}
  - {series: 'serve_queue_seconds_bucket{instance="a",le="1"}', values: "0+1x30"}
  - {series: 'serve_queue_seconds_bucket{instance="a",le="2.5"}', values: "0+9x30"}
  - {series: 'serve_queue_seconds_bucket{instance="a",le="+Inf"}', values: "0+9x30"}
  - {series: 'serve_workers_live{instance="a",pool="classify"}', values: "0x30"}
  - {series: 'serve_workers_configured{instance="a",pool="classify"}', values: "2x30"}
  - {series: 'serve_worker_restarts_total{instance="a"}', values: "0+1x30"}
  - {series: 'serve_reload_failing{instance="a"}', values: "1x30"}
  - {series: 'serve_model_info{instance="a",digest="1"}', values: "1x30"}
  - {series: 'serve_model_info{instance="b",digest="2"}', values: "1x30"}
  - {series: 'serve_access_log_lost_total{instance="a"}', values: "0+1x30"}
  promql_expr_test:
  - {eval_time: 20m, expr: 'count by (alertname) (ALERTS{alertstate="firing"})', exp_samples: FIRING}
"""


def _well(text: str) -> str:
    """The same series of two servers that are well."""
    for name, before, after in (
        ('"/predict",code="503"', "0+10x", "0+0x"),
        ('code="500"', "_x15 1x15", "0x30"),
        ('le="1"', "0+1x", "0+9x"),
        ("serve_workers_live", "0x", "2x"),
        ("restarts", "0+1x", "0+0x"),
        ("failing", "1x", "0x"),
        ('digest="2"', 'digest="2"', 'digest="1"'),
        ("lost", "0+1x", "0+0x"),
    ):
        lines = text.splitlines()
        text = "\n".join(line.replace(before, after) if name in line else line for line in lines)
    return text


@needs("promtool")
def test_the_rules_fire_when_they_should(tmp_path):
    """Guards against an alert that stays silent in the trouble it is for, and one that rings all the time."""
    run("promtool", "check", "rules", DEPLOY / "alerts.yaml")
    every = [{"labels": f'{{alertname="{rule["alert"]}"}}', "value": 1} for rule in rules()]
    for text, firing in ((TROUBLE, every), (_well(TROUBLE), [])):
        text = text.replace("RULES", str(DEPLOY / "alerts.yaml")).replace("FIRING", json.dumps(firing))
        (tmp_path / "test.yaml").write_text(text)
        run("promtool", "test", "rules", tmp_path / "test.yaml")


def test_the_image_holds_what_the_server_needs(tmp_path):
    """Guards against an image without a package that serve.py imports, and one with the images or runs of its maker."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    kept = {path.name for path in ROOT.iterdir() if not any(path.match(pattern) for pattern in ignored)}
    assert {"serve.py", "serving", "system", "config.py", "config.yaml", "imaging", "inference"} <= kept
    assert not {".git", ".venv", "output", "infer", "signs", "tests"} & kept
    for name in kept:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    line = "import serve, serving.server, serving.worker, config; config.load(); import serving.batch_classifier"
    run(sys.executable, "-W", "ignore", "-c", line, cwd=tmp_path)
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists() and Path(name).name in {*kept, ""}, name


@pytest.mark.slow
@needs("docker")
def test_the_image_builds():
    """Guards against a Dockerfile that fails after minutes."""
    if subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode != 0:
        pytest.skip("no Docker daemon runs")
    run("docker", "build", "-t", "classification:test", ".")
    assert "usage:" in run("docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "classification:test", "--help")
