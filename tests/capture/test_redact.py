"""What is taken for a secret, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstone.capture import redact

# Put together at run time: a scanner of this repository would take them for real.
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
OPENAI = "sk-" + "proj-abcdefghijklmnop1234"
HUGGING = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz"
TOKEN = "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJ" + "zdWIiOiIxMjM0In0.abc-DEF_123"
RANDOM = "q7Wm2Zx9Lp4Kt8Vb3Nc6Rj1Hd5Gs0Fy"


@pytest.mark.parametrize("secret", [GITHUB, AWS, OPENAI, HUGGING, TOKEN, RANDOM])
@pytest.mark.parametrize("around", ["{}", "x = f('{}')", "see {} there", '{{"a": "{}"}}'])
def test_secret_is_found_by_its_shape(secret: str, around: str) -> None:
    clean = redact.text(around.format(secret), is_code=True)
    assert secret not in clean
    assert redact.REDACTED in clean


@pytest.mark.parametrize(
    "line",
    [
        'password = "hunter2"',
        "self.api_key: str = 'abcd'",
        'API_KEY = "correct horse battery"',
        'client = Client(token="abcdefgh1234567890")',
        'os.environ["AWS_SECRET_ACCESS_KEY"] = "abcd1234"',
        'os.environ.setdefault("WANDB_API_KEY", "abcd1234")',
        '{"db_password": "s3cr3t!"}',
        'headers = {"Authorization": "Bearer abcdefgh1234567890"}',
        "curl -H 'Authorization: Bearer abcdefgh1234567890'",
        'print("{\\"api_key\\": \\"abcd1234\\"}")',
    ],
)
def test_secret_in_code_is_found_by_its_name(line: str) -> None:
    clean = redact.text(line, is_code=True)
    assert redact.REDACTED in clean
    for secret in ("hunter2", "abcd", "correct", "s3cr3t", "abcdefgh1234567890"):
        assert secret not in clean


@pytest.mark.parametrize(
    "line",
    [
        "password: hunter2",
        "api_key = abcd1234",
        "export HF_TOKEN=abcd1234",
        "DB_PASS=hunter2",
        "  - secret: hunter2",
        "python train.py --api-key abcd1234",
    ],
)
def test_secret_in_a_configuration_needs_no_quotes(line: str) -> None:
    clean = redact.text(line, is_code=False)
    assert "hunter2" not in clean
    assert "abcd1234" not in clean


@pytest.mark.parametrize(
    "line",
    [
        'tokenizer.pad_token = "<pad>"',
        'eos_token = "</s>"',
        "max_new_tokens = 4096",
        "num_key_value_heads: 8",
        'monitor_key = "val/loss"',
        'key = "loss"',
        "keys = sorted(metrics.keys())",
        "token = tokenizer.encode(text)",
        "password = args.password",
        "api_key = os.environ['OPENAI_API_KEY']",
        "def __init__(self, api_key: str | None = None) -> None:",
        "secret: ${{ secrets.DEPLOY_KEY }}",
        'author = "Jane Doe"',
        "if token is None:",
        "raise AuthError",
        "The password is asked for; a token: see below.",
        "commit 9a446ae140a38a448cbe49774e531ce1d0e7ac28",
        "sha256:3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea",
        '"integrity": "sha512-q7Wm2Zx9Lp4Kt8Vb3Nc6Rj1Hd5Gs0FyQ7Wm2Zx9Lp4Kt8Vb3Nc6Rj1Hd5Gs0Fyq7Wm=="',
        "model = 'Qwen2.5-Coder-32B-Instruct-GPTQ-Int4'",
        "from transformers import AutoModelForSequenceClassification as Model",
        "/data/runs/2026-11-23T06-30-35/checkpoints/epoch=12-step=48000.ckpt",
        "git+https://github.com/owner/project@v1.2.3",
        "pip install torch==2.13.0",
    ],
)
def test_ordinary_code_stays(line: str) -> None:
    assert redact.text(line, is_code=True) == line


@pytest.mark.parametrize(
    ("address", "clean"),
    [
        ("https://user:pass@host.example/a/b.git", "https://host.example/a/b.git"),
        ("https://token@host.example:8443/a.git", "https://host.example:8443/a.git"),
        ("https://user:p@ss@host.example/a.git", "https://host.example/a.git"),
        ("https://user:p/w@host.example/a.git", redact.REDACTED),
        ("https://host.example/a.git?access_token=abc#x", "https://host.example/a.git"),
        ("ssh://git@host.example/a.git", "ssh://host.example/a.git"),
        ("git@github.com:owner/project.git", "git@github.com:owner/project.git"),
        ("user:pass@host.example:a.git", redact.REDACTED),
        ("/srv/git/project.git", "/srv/git/project.git"),
        ("https://[::1]:80/a.git", "https://[::1]:80/a.git"),
        ("https://[broken@host/a.git", redact.REDACTED),
    ],
)
def test_address_loses_user_and_password(address: str, clean: str) -> None:
    assert redact.url(address) == clean


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        (["--api-key", "abc"], ["--api-key", "<redacted>"]),
        (["--api-key=abc"], ["--api-key=<redacted>"]),
        (["--token", "abc", "--lr", "1e-3"], ["--token", "<redacted>", "--lr", "1e-3"]),
        (["--hfToken", "abc"], ["--hfToken", "<redacted>"]),
        (["+model.auth.token=abc"], ["+model.auth.token=<redacted>"]),
        (["DB_PASSWORD=1234"], ["DB_PASSWORD=<redacted>"]),
        (["--password", "1234"], ["--password", "<redacted>"]),
        (["--token", "-abc"], ["--token", "<redacted>"]),
        (["--password", "--lr", "3"], ["--password", "--lr", "3"]),
        (["--config", '{"api_key": "abcd"}'], ["--config", '{"api_key": "<redacted>"}']),
        (["--db", "postgres://u:p@host/db"], ["--db", "postgres://<redacted>@host/db"]),
        (["--max-tokens", "512"], ["--max-tokens", "512"]),
        (["--num_key_value_heads=8"], ["--num_key_value_heads=8"]),
        (["--tokenizer", "gpt2"], ["--tokenizer", "gpt2"]),
        (["--pad-token", "<pad>"], ["--pad-token", "<pad>"]),
        (["train.py", "--lr", "1e-3"], ["train.py", "--lr", "1e-3"]),
        ([GITHUB], ["<redacted>"]),
    ],
)
def test_command_line_loses_its_secrets_only(given: list[str], clean: list[str]) -> None:
    assert redact.arguments(given) == clean


@pytest.mark.parametrize("name", ["FOO_TOKEN", "AWS_SECRET_ACCESS_KEY", "my_password", "GIT_AUTH", "COOKIE", "DB_CRED"])
def test_variable_is_secret_by_name(name: str) -> None:
    assert redact.is_secret_variable(name)


def test_patch_keeps_its_lines_when_a_key_is_taken_out() -> None:
    begin, end = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
    lines = ["+++ b/key.txt\n", f"+{begin}\n", "+MIIEowIBAAKCAQEA\n", "+abcdef\n", f"+{end}\n", "+after\n"]
    clean, changed = redact.patch(lines, pause=lambda: None)
    assert len(clean) == len(lines)
    assert changed == 4
    assert "MIIE" not in "".join(clean)
    assert [line[0] for line in clean] == ["+"] * 6
    assert all(line.endswith("\n") for line in clean)
    assert clean[-1] == "+after\n"


def test_patch_judges_a_line_by_the_language_of_its_file() -> None:
    lines = ["+++ b/a.py\n", "+password = settings\n", "+++ b/a.env\n", "+password = settings\n"]
    clean, changed = redact.patch(lines, pause=lambda: None)
    assert clean[1] == lines[1]
    assert clean[3] == "+password = <redacted>\n"
    assert changed == 1


def test_home_folder_is_written_as_a_tilde() -> None:
    given = {"a": ["/home/jane/x.py", "/home/janet/x.py", "x=/home/jane", "/home/jane.old"]}
    assert redact.tree(given, home="/home/jane") == {"a": ["~/x.py", "/home/janet/x.py", "x=~", "/home/jane.old"]}


def test_tree_is_always_json_and_text() -> None:
    clean = redact.tree({"a": "\udcff", "b": float("nan"), "c": (1, 2.5, None, True), 3: "é"}, home=None)
    assert clean == {"a": "�", "b": "nan", "c": [1, 2.5, None, True], "3": "é"}


@given(st.text())
def test_any_text_keeps_its_lines(text: str) -> None:
    assert redact.text(text).count("\n") == text.count("\n")


@given(st.lists(st.text()))
def test_any_command_line_keeps_its_length(argv: list[str]) -> None:
    assert len(redact.arguments(argv)) == len(argv)
