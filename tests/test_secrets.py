"""No credential gets into what is printed, written, committed or logged; no URI may hold one."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from urllib.parse import quote

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from retrieval.errors import IndexFormatError, RetrievalError, UsageError
from retrieval.gallery.listing import list_photos
from retrieval.index import open_index
from retrieval.index.delta_retry import root_cause
from retrieval.one_line import as_json, one_line
from retrieval.secrets import names_secret, without_secrets
from retrieval.storage import (
    absolute_uri,
    list_files,
    open_store,
    read_bytes,
    write_bytes,
)
from tests.conftest import COLOURS, photo_bytes
from tests.faults import faulty_store
from tests.retrieval.commits import commit, make_shard

ROOT = Path(__file__).parents[1]
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "secret+Key/" + uuid.uuid4().hex,
    "AWS_SESSION_TOKEN": "sessionToken" + uuid.uuid4().hex,
    "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
}


def found_in(content):
    """The names of the secrets that a text holds."""
    spelled = {name: {value, quote(value, safe="")} for name, value in SECRETS.items()}
    return [name for name, forms in spelled.items() if any(f.encode() in content for f in forms)]


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_an_error_of_a_store_does_not_repeat_what_it_was_asked_with(s3, secrets):
    with faulty_store(s3, "secrets", patience_s=0.1) as store:
        write_bytes(f"{store.uri}/a", b"a" * 1000)
        commit(f"{store.uri}/index", [make_shard(f"{store.uri}/index", "a")], None)
        shards = open_index(f"{store.uri}/index").shards
        store.fail("403", count=None)
        told = []
        for use in (
            lambda: list_files(store.uri),
            lambda: write_bytes(f"{store.uri}/b", b"b"),
            lambda: open_index(f"{store.uri}/index"),
            lambda: commit(f"{store.uri}/index", shards, 0),
            lambda: list_photos(store.uri),
        ):
            with pytest.raises(RetrievalError) as caught:
                use()
            told.append(str(caught.value))
        with pytest.raises(OSError, match="a") as caught:
            read_bytes(f"{store.uri}/a")
    assert [found_in(text.encode()) for text in told] == [[]] * len(told)
    assert all("\n" not in text for text in told)


def run_command(*arguments, folder):
    """Run the command line as users do; gives the exit code and all that it printed."""
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    # Not below the test's folder: Ray's sockets allow paths of some 100 bytes.
    environment = {**os.environ, "RAY_TMPDIR": folder, "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("method", "substring"),
    [
        pytest.param("GET", "photos", id="photos"),
        pytest.param("PUT", "_delta_log", id="commit", marks=pytest.mark.soak),
    ],
)
def test_a_night_and_what_follows_leave_no_secret_anywhere(
    s3, secrets, tmp_path, method, substring
):
    place = f"{s3}/night-{method}"
    for colour, shade in COLOURS.items():
        write_bytes(f"{place}/photos/{colour}/a.jpg", photo_bytes(shade))
    page = str(tmp_path / "page.html")
    embed = ["embed", f"{place}/photos", f"{place}/index", "--weights", "none"]
    embed += ["--image-size", "32", "--num-actors", "1"]
    rank = ["rank", f"{place}/index", f"{place}/index", f"{place}/ranking", "--top-k", "all"]
    evaluate = ["evaluate", f"{place}/ranking", "--queries", f"{place}/index"]
    evaluate += ["--gallery", f"{place}/index"]
    with tempfile.TemporaryDirectory() as folder:
        with faulty_store(s3, "night") as store:
            store.fail("403", method, substring, count=None)
            printed = [(1, *run_command(*embed, folder=folder))]
            store.set()
            for arguments in (embed, rank, evaluate, ["report", f"{place}/ranking", page]):
                printed.append((0, *run_command(*arguments, folder=folder)))
        for expected, code, output in printed:
            assert (code, found_in(output)) == (expected, []), output.decode()
        logs = [path for path in Path(folder).rglob("*") if path.is_file()]
        written = {path: path.read_bytes() for path in [*logs, Path(page)]}
    bucket = boto3.resource("s3").Bucket(s3.removeprefix("s3://"))
    written |= {each.key: each.get()["Body"].read() for each in bucket.objects.all()}
    assert any("_delta_log" in str(name) for name in written)
    assert any("raylet" in str(name) for name in written)
    assert {name: found_in(content) for name, content in written.items() if found_in(content)} == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://h/a?X-Amz-Credential=AK/1&b=2", "GET https://h/a?X-Amz-Credential=***&b=2"),
        ("at a?x-goog-signature=0a1b", "at a?x-goog-signature=***"),
        ("<Token-0>abc</Token-0><a>b</a>", "<Token-0>***</Token-0><a>b</a>"),
        ("header authorization: AWS4 abc, def", "header authorization: ***"),
        ("s3://KEY:SECRET/b@bucket/a failed", "s3://***@bucket/a failed"),
        ("no /photos/a@b:c.jpg, no s3://bucket/a", "no /photos/a@b:c.jpg, no s3://bucket/a"),
    ],
)
def test_credentials_in_a_text_are_left_out(text, shown):
    assert without_secrets(text) == shown


def test_what_deltalake_says_is_shown_without_them():
    error = OSError("Generic error\n  \x1b[31m↳\x1b[0m GET https://h/a?X-Amz-Signature=0a1b failed")
    assert root_cause(error) == "GET https://h/a?X-Amz-Signature=*** failed"


def test_secrets_of_the_environment_are_left_out_but_no_names_of_files(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "token-of-some-store")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/someone/token")
    monkeypatch.setenv("MY_PASSWORD", "short")
    text = "token-of-some-store, /home/someone/token, short"
    assert without_secrets(text) == "***, /home/someone/token, short"


WITH_CREDENTIALS = [
    "s3://KEY:hidden-value@bucket/a",
    "s3://KEY:hidden/value@bucket/a",
    "s3://hidden-value@bucket",
    "S3://KEY:hidden-value@bucket/a",
    "gs://hidden-value@bucket/a",
    "abfs://container:hidden-value@account.dfs.core.windows.net/a",
    "hdfs://user:hidden-value@host/a",
    "s3://bucket?access_key=KEY&secret_key=hidden-value",
    "s3://bucket/a?Secret_Key=hidden-value",
    "https://bucket.s3.amazonaws.com/a?X-Amz-Signature=hidden-value&b=1",
    "s3:/KEY:hidden-value@bucket/a",
    "s3:KEY:hidden-value@bucket/a",
    "s3:///KEY:hidden-value@bucket/a",
    "S3A:/KEY:hidden/value@bucket/a",
    "gs:/KEY:hidden-value@bucket/a",
    "s3://KEY%3Ahidden-value%40bucket/a",
    "s3%3A%2F%2FKEY%3Ahidden-value%40bucket/a",
    "s3://bucket/a%3Fsig=hidden-value",
    "s3://bucket/a%253Fsig=hidden-value",
    "https://hidden-value@host/a",
    "https://me:hidden/value@host/a",
    "https://me:80hidden@host/a",
    "http://hidden:12345@host/a",
    "redis://:hidden-value@host:6379/0",
    "file://me:hidden-value@host/a",
    "s3://bucket?secretKey=hidden-value",
    "s3://bucket/a?b=c&apiKey=hidden-value",
    "https://account.blob.core.windows.net/c/a?sv=1&sig=hidden-value",
    "https://host/a;jsessionid=1;Session-Token=hidden-value",
    "https://host/a#access_token=hidden-value",
    *(
        f"https://host/a?{name}=hidden-value"
        for name in ("token", "api_key", "apikey", "key", "auth", "pwd", "pass", "X-Amz-Credential",
                     "Signature", "AWSAccessKeyId", "Key-Pair-Id", "client_secret", "t%6Fken")
    ),
]  # fmt: skip


@pytest.mark.parametrize("uri", WITH_CREDENTIALS)
def test_an_address_with_credentials_is_refused_without_repeating_them(uri, tmp_path):
    for use in (absolute_uri, open_store, read_bytes):
        with pytest.raises(UsageError, match="credentials stand in this address") as caught:
            use(uri)
        assert "hidden" not in str(caught.value)
    time = pa.array([0], pa.timestamp("us", "UTC"))
    row = {"image_id": ["a"], "uri": [uri], "size_bytes": [1], "modified_at": time}
    pq.write_table(pa.table(row), tmp_path / "manifest.parquet")
    with pytest.raises(IndexFormatError, match="credentials stand in the uri of 'a'") as caught:
        list_photos(str(tmp_path / "manifest.parquet"))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/a@b:c", "s3://bucket/a?b=c", "gs://anonymous@bucket/a", "/a?secret_key=b",
     "abfs://container@account.dfs.core.windows.net/a", "hdfs://user@host:8020/a",
     "hdfs://user@host:8020/a@b", "https://host:8443/a@b:c", "https://[::1]:80/a@b",
     "s3://bucket/key=3/session=4/a.jpg", "s3://bucket/100%25@2x.jpg", "s3://bucket/a?version=1",
     "/photos/a@b:c?token=d", "/photos/http:/a"],
)  # fmt: skip
def test_an_address_without_credentials_is_not(uri):
    assert absolute_uri(uri) == uri


COMMANDS = {
    "embed": ["{}", "index"],
    "augment": ["{}", "output"],
    "train": ["{}", "model"],
    "rank": ["{}", "{}", "ranking"],
    "evaluate": ["{}", "--queries", "{}", "--gallery", "{}"],
    "report": ["{}", "page.html"],
    "verify": ["{}"],
    "status": ["{}"],
    "diff": ["{}", "1", "2"],
    "restore": ["{}", "1"],
    "vacuum": ["{}"],
    "retry-rejects": ["{}", "{}"],
    "reindex": ["{}", "{}", "--queries", "{}"],
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_no_command_repeats_or_writes_credentials_of_its_arguments(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in WITH_CREDENTIALS:
        arguments = [each.format(address) for each in COMMANDS[verb]]
        result = CliRunner().invoke(main, [verb, *arguments])
        assert result.exit_code in (1, 2), address
        assert "hidden" not in result.output, address
        assert result.exit_code == 2 or "credentials stand in this address" in result.output
        # Also where click tells of wrong usage.
        result = CliRunner().invoke(main, [verb, *arguments, "more", address, f"--x={address}"])
        assert result.exit_code in (1, 2)
        assert "hidden" not in result.output, address
    assert list(tmp_path.rglob("*")) == []


NAMES_OF_SECRETS = [
    "DB_PWD", "GH_PAT", "MY_PASS", "GHPAT", "MYPASS", "SMTP_PASSWORD", "PGPASSWORD", "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "apiKey", "secretKey", "Secret-Key",
    "WANDB_API_KEY", "SENTRY_DSN", "AZURE_STORAGE_SAS", "MY_CREDS", "SESSION_COOKIE",
    "DB_PASSPHRASE", "JWT", "SSH_PRIVATE_KEY", "AZURE_STORAGE_CONNECTION_STRING", "BASIC_AUTH",
    "AWS_ACCESS_KEY_ID", "SIGNING_KEYS", "access.token", "X_SIG", "db_pwd", "dbpwd",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES_OF_SECRETS)
def test_a_name_of_a_credential_is_known_however_it_is_written(name):
    assert names_secret(name)


@pytest.mark.parametrize(
    "name",
    ["PWD", "OLDPWD", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TOKENIZERS_PARALLELISM", "LANG",
     "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "SSH_AUTH_SOCK", "OMP_NUM_THREADS", "AWS_PROFILE",
     "AWS_REGION", "AUTHOR", "KEYS", "COMPATIBILITY", "PATTERN", "XDG_SESSION_TYPE"],
)  # fmt: skip
def test_a_name_of_none_is_not(name):
    assert not names_secret(name)


SHAPES = [
    "ghp_hiddenhiddenhiddenhidden12",
    "github_pat_11hidden_hiddenhiddenhidden",
    "hf_hiddenhiddenhiddenhiddenhidden",
    "glpat-hiddenhidden-hidden",
    "xoxb-hidden-hidden-hidden",
    "AKIAABCDEFGHIJKLMNOP:hidden",
    "eyJhbGciOiJIUzI1NiJ9.hiddenhidden.hidden",
    "Bearer hidden-hidden",
    "Authorization: Basic hidden",
    "-----BEGIN RSA PRIVATE KEY----- hidden -----END RSA PRIVATE KEY-----",
    "Server=a;Uid=b;Pwd=hidden;Port=1",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hidden==;EndpointSuffix=b",
    "host=a user=b password=hidden",
    "postgresql://me:hidden@host/db",
]


@pytest.mark.parametrize("text", [*WITH_CREDENTIALS, *SHAPES])
def test_whatever_looks_like_a_credential_is_left_out_of_a_line(text):
    for line in (text, f"cannot read {text}", f'{{"a": "{text}"}}', f"('{text}', 2)\nnext"):
        assert "hidden" not in one_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "Use KEY=VALUE, such as ray.io/accelerator-type=L4; the value of letters",
        "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE, a file of mode 0600",
        "/photos/key=3/session=5/a.jpg: no photo",
        "/home/me/.ray/auth_token: others on this machine may read this token: chmod 600",
        "Ray http://127.0.0.1:8265: refuses the token of RAY_AUTH_TOKEN.",
        "pip: PyJWT==2.8 tokenizers=0.2.1 cookiecutter=2.1",
        "embedded 420 of 738 photos, 24.0/s, about 13 s left",
    ],
)
def test_a_line_without_credentials_stays_as_it_is(line):
    assert one_line(line) == line


def test_the_password_of_a_proxy_is_left_out_in_any_form(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hidden%2Fvalue@proxy:3128")
    monkeypatch.setenv("MY_PAT", "hidden/other")
    text = "hidden%2Fvalue, hidden/other, hidden%2Fother, http://me:hidden%2Fvalue@proxy:3128"
    assert "hidden" not in without_secrets(text)


@pytest.mark.parametrize(
    "letter", ["\n", "\x1b", "\x9b", "\u202e", "\u2028", "\u200b", "\U000e0001"]
)
def test_nothing_that_is_shown_steers_a_terminal(letter):
    name = f"a{letter}b"
    assert one_line(name) == f"a{ascii(letter)[1:-1]}b"
    shown = as_json({name: [name]})
    assert json.loads(shown) == {name: [name]}
    assert shown.replace("\n", "").isprintable()
    wrong = CliRunner().invoke(main, ["status", "a", name])
    assert letter not in wrong.output.replace("\n", "") or letter == "\n"
    assert ascii(letter)[1:-1] in wrong.output


def test_names_in_a_report_are_spelled_and_stay_the_same(tmp_path):
    names = ["a\x9b2J", "b\u202egpj", "c\u2028d", "e\x1b[2J", "f\u200bg", "h\u3000\u00e9"]
    place = str(tmp_path / "index")
    commit(place, [first := make_shard(place, "z")], None)
    commit(place, [first, make_shard(place, *names)], 0)
    result = CliRunner().invoke(main, ["diff", place, "0", "1", "--list"])
    assert json.loads(result.stdout)["ids"]["added"] == sorted(names)
    assert all(
        letter == "\u3000" or letter.isprintable() for letter in result.stdout if letter != "\n"
    )
    assert "h\u3000\u00e9" in result.stdout


def test_letters_of_any_script_are_shown_as_they_are():
    name = "\u5199\u771f\u30002024 \u00e9\u00a0\U0001f600"
    assert one_line(name) == name
    assert name in as_json([name])


@pytest.mark.parametrize("address", ["me:hidden@h:6379", "ray://me:hidden@h:1", "h:1?t=hidden"])
def test_an_address_of_a_cluster_with_credentials_is_refused(address, tmp_path, monkeypatch):
    given = ["rank", "a", "b", str(tmp_path / "c")]
    by_option = CliRunner().invoke(main, [*given, "--address", address])
    monkeypatch.setenv("RAY_ADDRESS", address)
    for result in (by_option, CliRunner().invoke(main, given)):
        assert result.exit_code == 1
        assert "no user, password or token belongs into the address" in result.output
        assert "hidden" not in result.output


CALLS = {("np", "load"): "allow_pickle", ("numpy", "load"): "allow_pickle"}
CALLS |= {("torch", "load"): "weights_only"}
BANNED = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
SAFE = {"allow_pickle": False, "weights_only": True}


@pytest.mark.parametrize("package", ["retrieval", "pipelines"])
def test_nothing_is_unpickled_and_no_yaml_made_an_object(package):
    num_calls = 0
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names}
                assert not BANNED & (names | {(getattr(node, "module", "") or "")}), file
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, name = getattr(node.func.value, "id", ""), node.func.attr
            assert owner != "yaml" or name not in {"load", "unsafe_load", "full_load"}, file
            if wanted := CALLS.get((owner, name)):
                num_calls += 1
                given = {each.arg: getattr(each.value, "value", None) for each in node.keywords}
                assert given.get(wanted) is SAFE[wanted], f"{file}: {owner}.{name}"
    assert num_calls or package == "pipelines"
