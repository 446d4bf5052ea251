"""Who may ask: this machine's programs, and elsewhere whoever has the token; and what every answer carries."""

import http.client
import shutil
import subprocess
from base64 import b64encode

import pytest
from answering import Answering
from browsers import opened, program_of

from stillroom.cli.app import main
from stillroom.cli.unforeseen import LOG, unforeseen
from stillroom.errors import UsageError
from stillroom.serving.access import OPEN
from stillroom.serving.settings import ServeSettings, read_token

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def guarded(model, tmp_path_factory):
    """A server that other machines could reach, with its token in a file."""
    file = tmp_path_factory.mktemp("secret") / "token"
    file.write_text(TOKEN + "\n")
    with Answering(model, "--host", "0.0.0.0", "--token-file", file) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/metrics", "/openapi.json", "/v1/models", "/v2", "/v2/models/first"])
def test_nothing_is_told_without_the_token(guarded, path):
    for headers in (
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": "Basic ?"},
        {"Authorization": TOKEN},
    ):
        reply = guarded.get(path, **headers)
        assert reply.status == 401
        assert set(reply.json) == {"error"}
    assert guarded.get(path, Authorization=f"Bearer {TOKEN}").status == 200
    basic = b64encode(f"anybody:{TOKEN}".encode()).decode()
    assert guarded.get(path, Authorization=f"Basic {basic}").status == 200


def test_each_way_to_log_in_stands_on_a_line_of_its_own(guarded):
    with guarded.socket() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = http.client.HTTPResponse(connection)
        head.begin()
        challenges = head.headers.get_all("www-authenticate")
    assert challenges == ["Bearer", 'Basic realm="stillroom", charset="UTF-8"']


def test_a_browser_can_log_in(guarded, tmp_path):
    if program_of("chromium") is None:
        pytest.skip("no Chromium on this machine")
    with opened("chromium", tmp_path / "profile") as browser:
        browser.goto(f"http://anybody:{TOKEN}@127.0.0.1:{guarded.port}/v1/models")
        assert '"models"' in browser.evaluate("document.body.innerText")


def test_images_need_the_token_and_health_does_not(guarded, images):
    content = images[0].read_bytes()
    assert guarded.post("/v1/predict", content, "image/png").status == 401
    assert guarded.post("/v1/predict", content, "image/png", Authorization=f"bearer {TOKEN}").status == 200
    assert guarded.get("/v2/health/live").status == guarded.get("/v2/health/ready").status == 200


def test_the_token_is_nowhere_to_be_read(guarded):
    counts = guarded.get("/metrics", Authorization=f"Bearer {TOKEN}").body.decode()
    assert 'stillroom_refusals_total{reason="token"}' in counts
    assert TOKEN not in counts + "".join(guarded.lines)
    assert TOKEN not in repr(ServeSettings(("run",), token=TOKEN))


def test_a_host_name_that_another_place_points_here_is_refused(server):
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "", "127.0.0.1.evil.example"):
        assert server.get("/v2", Host=host).status == 421, host
    for host in ("localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST"):
        assert server.get("/v2", Host=host).status == 200, host


def test_pages_of_other_places_may_not_ask(server, images):
    content = images[0].read_bytes()
    for origin in ("https://evil.example", "null", f"http://localhost:{server.port + 1}"):
        reply = server.post("/v1/predict", content, "image/png", Origin=origin)
        assert reply.status == 403
        assert not [name for name in reply.headers if name.startswith("access-control")]
    own = f"http://127.0.0.1:{server.port}"
    assert server.post("/v1/predict", content, "image/png", Origin=own).status == 200
    preflight = server.ask("OPTIONS", "/v1/predict", headers={"Origin": own, "Access-Control-Request-Method": "POST"})
    assert preflight.status == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/v2", "/nothing", "/metrics"])
def test_every_answer_carries_the_headers(server, path):
    headers = server.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    wanted = "frame-ancestors 'none'" if path == "/" else "default-src 'none'"  # the page says itself what it forbids
    assert wanted in headers["content-security-policy"]
    assert "server" not in headers


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["serve", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_wrong_use_is_told_before_anything_listens(model, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("STILLROOM_TOKEN", raising=False)
    assert "so it needs a token" in refused(capsys, model, "--host", "0.0.0.0")
    assert "A proxy can reach" in refused(capsys, model, "--names", "clinic.example")
    assert "There is no model" in refused(capsys, tmp_path / "none.onnx")
    assert "would both be called first" in refused(capsys, model, model)
    assert f"letters, digits, - _ and . alone; give one as in a-b={model}." in refused(capsys, f"a b={model}")
    assert f"give one as in a-b={model}." in refused(capsys, f"a/b={model}")
    assert f"give one as in first={model}." in refused(capsys, f"={model}")
    assert "There is neither a/b=none nor, where NAME=PATH is meant, none." in refused(capsys, "a/b=none")
    assert "go together" in refused(capsys, model, "--tls-cert", model)
    assert "--port must be at most" in refused(capsys, model, "--port", 70000)
    assert "--max-megapixels must lie between" in refused(capsys, model, "--max-megapixels", 1000)
    assert "--deadline must be above 0" in refused(capsys, model, "--deadline", 0)
    for file, reason in ((tmp_path / "none", "no such file or directory"), (tmp_path, "is a directory")):
        said = refused(capsys, model, "--token-file", file)
        assert f"The token cannot be read from {file}: {reason}. Name a file that you may read" in said
    (tmp_path / "token").write_text(TOKEN)
    said = refused(capsys, model, "--host", "192.0.2.1", "--token-file", tmp_path / "token")
    assert "Name with --host an address of this machine" in said
    monkeypatch.setenv("STILLROOM_TOKEN", "short")
    assert "at least 16" in refused(capsys, model)
    assert "leave one out" in refused(capsys, model, "--token-file", tmp_path / "none")


def test_a_port_that_is_taken_is_named(server, model, capsys):
    for more in ((), ("--workers", 2)):
        said = refused(capsys, model, "--port", server.port, *more)
        assert f"port {server.port} cannot be had: address already in use. Name another with --port" in said


def test_the_token_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("STILLROOM_TOKEN", f" {TOKEN}\n")
    assert read_token(None) == TOKEN
    with pytest.raises(UsageError):
        ServeSettings(("run",), host="192.168.0.7")
    assert ServeSettings(("run",), host="::1").allowed_hosts >= {"[::1]", "localhost"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate and its key, the key of another one, and the key behind a passphrase."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    folder = tmp_path_factory.mktemp("certificates")
    for made in (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem",
        "openssl genrsa -out other.pem 2048",
        "openssl rsa -aes256 -passout pass:secret -in key.pem -out locked.pem",
    ):
        subprocess.run(made.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("none", "key.pem", "--tls-cert: There is no file at {0}none"),
        ("cert.pem", "none", "--tls-key: There is no file at {0}none"),
        (".", "key.pem", "--tls-cert {1} is a folder: name the file in it."),
        ("cert.pem", ".", "--tls-key {1} is a folder: name the file in it."),
        ("text", "key.pem", "--tls-cert {0}text is no certificate in PEM"),
        ("key.pem", "key.pem", "--tls-cert {0}key.pem is no certificate in PEM"),
        ("cert.pem", "text", "--tls-key {0}text is no private key in PEM"),
        ("cert.pem", "cert.pem", "--tls-key {0}cert.pem is no private key in PEM"),
        ("cert.pem", "other.pem", "--tls-key {0}other.pem is not the key of the certificate {0}cert.pem"),
        ("cert.pem", "locked.pem", "--tls-key {0}locked.pem is encrypted"),
    ],
)
def test_files_that_make_no_https_are_named(certificates, model, capsys, cert, key, words):
    (certificates / "text").write_text("no PEM")
    said = refused(capsys, model, "--tls-cert", certificates / cert, "--tls-key", certificates / key)
    assert words.format(f"{certificates}/", certificates) in said


def test_what_goes_wrong_is_not_written_into_a_served_run(monkeypatch, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("manifest.json", "settings.yaml"):
        (run / name).write_text("")
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    for verb, written in (("serve", False), ("resume", True)):
        said = unforeseen(ValueError("broken"), [verb, str(run)])
        assert (f"stands in {run / LOG}." in said) == (run / LOG).exists() == written


def test_the_description_says_what_needs_the_token(guarded, server):
    told = guarded.get("/openapi.json", Authorization=f"Bearer {TOKEN}").json
    assert {way["scheme"] for way in told["components"]["securitySchemes"].values()} == {"bearer", "basic"}
    for path, operations in told["paths"].items():
        for one in operations.values():
            assert ("security" in one, "401" in one["responses"]) == (path not in OPEN, path not in OPEN), path
    assert {"401", "403", "404", "422"} <= set(told["paths"]["/v2/repository/models/{name}/load"]["post"]["responses"])
    assert "securitySchemes" not in server.get("/openapi.json").json.get("components", {})


def test_https(model, images, certificates):
    with Answering(model, "--tls-cert", certificates / "cert.pem", "--tls-key", certificates / "key.pem") as server:
        assert server.tls
        reply = server.post("/v1/predict", images[0].read_bytes(), "image/png")
        assert reply.status == 200
        assert "max-age" in reply.headers["strict-transport-security"]


def test_names_without_a_name_are_refused(model, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(model), "--names"])
    assert "--names was given without a name" in capsys.readouterr().err


def test_a_request_without_a_host_is_told_so(server):
    with server.socket() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        head = http.client.HTTPResponse(connection)
        head.begin()
        assert head.status == 421
        assert b"The header Host is missing." in head.read()
