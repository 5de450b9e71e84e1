"""Records what Python's huggingface_hub makes of environment variables and stored tokens, and which proxy its client takes.

    python tests/reference/record_hub.py packages/miro/src/pipeline/loading/fixtures

Needs huggingface_hub (recorded with 2.4.0). Each case runs in a process of its own, with a home folder of its own, which
is `{home}` in what is recorded. The output is the same on every run.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

READ = """
import json, os
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers
try:
    token = build_hf_headers().get("authorization")
    if token is not None:
        token.encode("ascii")
        assert all(31 < ord(c) < 127 for c in token)
except (UnicodeError, AssertionError, OSError):
    token = {"error": True}
print(json.dumps({
    "cache": os.path.normpath(constants.HF_HUB_CACHE),
    "endpoint": constants.ENDPOINT,
    "offline": constants.HF_HUB_OFFLINE,
    "authorization": token,
    "metadataTimeout": constants.HF_HUB_ETAG_TIMEOUT,
    "downloadTimeout": constants.HF_HUB_DOWNLOAD_TIMEOUT,
    "symlinksDisabled": constants.HF_HUB_DISABLE_SYMLINKS,
}))
"""

ENVIRONMENTS = [
    {},
    {"HF_HOME": "/data/hf"},
    {"HF_HOME": "/data/hf/"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "~"},
    {"HF_HOME": "~root/hf", "HF_TOKEN": "hf_abc"},  # whose files nobody else may read
    {"HF_HOME": "~nobody-of-this-name/hf"},
    {"HF_HOME": "$SCRATCH/hf", "SCRATCH": "/scratch"},
    {"HF_HOME": "${SCRATCH}/hf", "SCRATCH": "/scratch"},
    {"HF_HOME": "$SCRATCH_NOT_SET/hf"},
    {"HF_HOME": "/a/$X/${X}b/$Xb", "X": "$Y", "Y": "no"},
    {"HF_HOME": "$TILDE/hf", "TILDE": "~"},
    {"HF_HOME": "/with space/é"},
    {"XDG_CACHE_HOME": "/xdg"},
    {"XDG_CACHE_HOME": "~/xdg"},
    {"XDG_CACHE_HOME": "$SCRATCH", "SCRATCH": "/scratch"},
    {"XDG_CACHE_HOME": "/xdg", "HF_HOME": "/data/hf"},
    {"HF_HUB_CACHE": "/data/hub"},
    {"HF_HUB_CACHE": "~/hub"},
    {"HF_HUB_CACHE": "$HF_HOME/other", "HF_HOME": "/data/hf"},
    {"HUGGINGFACE_HUB_CACHE": "/old/hub"},
    {"HUGGINGFACE_HUB_CACHE": "~/old/$X", "X": "x"},
    {"HUGGINGFACE_HUB_CACHE": "/old/hub", "HF_HUB_CACHE": "/new/hub", "HF_HOME": "/data/hf"},
    {"HF_ENDPOINT": "https://hf-mirror.com"},
    {"HF_ENDPOINT": "https://hf-mirror.com/"},
    {"HF_ENDPOINT": "https://hf-mirror.com//"},
    {"HF_ENDPOINT": "http://10.0.0.1:8080/api/hf/"},
    *({"HF_HUB_OFFLINE": value} for value in
      ["1", "0", "", "true", "TRUE", "True", "yes", "Yes", "on", "ON", "oN", "y", "t", " 1", "1 ", "2", "off", "no", "false"]),
    {"TRANSFORMERS_OFFLINE": "1"},
    {"TRANSFORMERS_OFFLINE": "yes"},
    {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "1"},
    {"HF_TOKEN": "hf_abc"},
    {"HF_TOKEN": "hf_abc\n"},
    {"HF_TOKEN": "\r\n hf_abc \t\r\n"},
    {"HF_TOKEN": "hf_\nabc"},
    {"HF_TOKEN": "\u00a0hf_abc\u2003"},
    {"HF_TOKEN": "hf_äbc"},
    {"HF_TOKEN": "hf_“abc”"},
    {"HF_TOKEN": "hf_a\u200bbc"},
    {"HF_TOKEN": "hf_a\x01bc"},
    {"HF_TOKEN": "hf_a\x7fbc"},
    {"HF_TOKEN": "\x1chf_abc\x1f"},
    {"HF_TOKEN": '"hf_abc"'},
    {"HF_TOKEN": " "},
    {"HF_TOKEN": "\n", "HUGGING_FACE_HUB_TOKEN": "hf_old"},
    {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "hf_old"},
    {"HUGGING_FACE_HUB_TOKEN": "hf_old"},
    {"HUGGING_FACE_HUB_TOKEN": "hf_old\n"},
    {"HF_TOKEN": "hf_new", "HUGGING_FACE_HUB_TOKEN": "hf_old"},
    {"HF_TOKEN": "hf_abc", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
    {"HF_TOKEN": "hf_abc", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"},
    {"HF_TOKEN": "hf_äbc", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "yes"},
    {"file": ".cache/huggingface/token", "content": "hf_file\n"},
    {"file": ".cache/huggingface/token", "content": "\n"},
    {"file": ".cache/huggingface/token", "content": "hf_ünreadable"},
    {"file": ".cache/huggingface/token", "content": "hf_file", "HF_TOKEN": "hf_abc"},
    {"file": ".cache/huggingface/token", "content": "hf_file", "HF_TOKEN": " "},
    {"file": ".cache/huggingface/token", "content": "hf_file", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "on"},
    {"file": ".cache/huggingface/token/in-the-way", "content": "hf_inside"},
    {"file": "other/login", "content": "hf_other", "HF_TOKEN_PATH": "~/other/login"},
    {"file": "other/login", "content": "hf_other", "HF_TOKEN_PATH": "$HOME/other/login"},
    {"file": "hf/token", "content": "hf_home", "HF_HOME": "~/hf"},
    {"file": "hf/token", "content": "hf_home", "HF_HOME": "~/hf", "HF_TOKEN_PATH": "~/not-there"},
    {"file": ".cache/huggingface/stored_tokens", "content": "[work]\nhf_token = hf_stored\n"},
    {"HF_HUB_ETAG_TIMEOUT": "30"},
    {"HF_HUB_ETAG_TIMEOUT": "0"},
    {"HF_HUB_ETAG_TIMEOUT": " 30 "},
    {"HF_HUB_ETAG_TIMEOUT": "+30"},
    {"HF_HUB_ETAG_TIMEOUT": "1_0"},
    {"HF_HUB_ETAG_TIMEOUT": "1.5"},
    {"HF_HUB_ETAG_TIMEOUT": "ten"},
    {"HF_HUB_ETAG_TIMEOUT": "1__0"},
    {"HF_HUB_DOWNLOAD_TIMEOUT": "60"},
    {"HF_HUB_DOWNLOAD_TIMEOUT": "1e3"},
    {"HF_HUB_DISABLE_SYMLINKS": "1"},
    {"HF_HUB_DISABLE_SYMLINKS": "false"},
]

CHOOSE = """
import json, sys
import httpx2
from httpx2._utils import URLPattern, get_environment_proxies
ways = sorted((URLPattern(pattern), proxy) for pattern, proxy in get_environment_proxies().items())
print(json.dumps([next((proxy for pattern, proxy in ways if pattern.matches(httpx2.URL(url))), None)
                  for url in json.loads(sys.argv[1])]))
"""

URLS = [
    "https://huggingface.co/",
    "http://huggingface.co/",
    "https://cdn.huggingface.co/",
    "https://nothuggingface.co/",
    "https://HuggingFace.co:8443/",
    "http://localhost:8901/",
    "http://sub.localhost/",
    "http://127.0.0.1:8901/",
    "http://10.1.2.3/",
    "http://[::1]:8901/",
    "http://[fd00::1]/",
]
P = "http://proxy:3128"
Q = "http://other:8080"
PROXIES = [
    {},
    {"http_proxy": P},
    {"HTTP_PROXY": P},
    {"https_proxy": P},
    {"HTTPS_PROXY": P},
    {"Https_Proxy": P},
    {"all_proxy": P},
    {"ALL_PROXY": P},
    {"all_proxy": P, "https_proxy": Q},
    {"http_proxy": P, "HTTP_PROXY": Q},
    {"http_proxy": "", "HTTP_PROXY": Q},
    {"HTTP_PROXY": "", "http_proxy": P},
    {"HTTP_PROXY": P, "HTTPS_PROXY": P, "REQUEST_METHOD": "GET"},
    {"http_proxy": P, "REQUEST_METHOD": "GET"},
    {"https_proxy": "proxy:3128"},
    {"https_proxy": "http://name:p%40ss@proxy:3128/"},
    *({"all_proxy": P, name: value} for name, value in [
        ("no_proxy", "*"),
        ("NO_PROXY", "*"),
        ("no_proxy", "huggingface.co"),
        ("no_proxy", ".huggingface.co"),
        ("no_proxy", "*.huggingface.co"),
        ("no_proxy", "*huggingface.co"),
        ("no_proxy", "HUGGINGFACE.CO"),
        ("no_proxy", " localhost , huggingface.co "),
        ("no_proxy", "localhost huggingface.co"),
        ("no_proxy", "huggingface.co:8443"),
        ("no_proxy", "huggingface.co:443"),
        ("no_proxy", "co"),
        ("no_proxy", "https://huggingface.co"),
        ("no_proxy", "all://huggingface.co"),
        ("no_proxy", "http://*"),
        ("no_proxy", "localhost"),
        ("no_proxy", "127.0.0.1"),
        ("no_proxy", "127.0.0.1:8901"),
        ("no_proxy", "127.0.0.0/8,10.0.0.0/8"),
        ("no_proxy", "10.0.0.0/33"),
        ("no_proxy", "10.1.2.0/30"),
        ("no_proxy", "::1"),
        ("no_proxy", "[::1]"),
        ("no_proxy", "fd00::/8"),
        ("no_proxy", "huggingface.co/path"),
        ("no_proxy", ""),
        ("no_proxy", ",,"),
    ]),
    {"all_proxy": P, "no_proxy": "localhost", "NO_PROXY": "huggingface.co"},
    {"all_proxy": P, "no_proxy": "", "NO_PROXY": "huggingface.co"},
]


def run(program, environment, *arguments):
    clean = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1", **environment}
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=clean, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    if "ValueError: invalid literal for int" not in done.stderr:
        raise SystemExit(done.stderr)
    return {"error": True}


def read(case):
    environment = {name: value for name, value in case.items() if name not in ("file", "content")}
    with tempfile.TemporaryDirectory() as home:
        if "file" in case:
            path = Path(home, case["file"])
            path.parent.mkdir(parents=True)
            path.write_text(case["content"], encoding="utf-8")
        answer = run(READ, {"HOME": home, **environment})
        return {"set": case, "python": json.loads(json.dumps(answer).replace(home, "{home}"))}


def write(path, comment, cases):
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text('{"comment": ' + json.dumps(comment) + ', "cases": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    comment = "Written by tests/reference/record_hub.py with huggingface_hub 2.4.0."
    write(folder / "hub-environment.json", comment, [read(case) for case in ENVIRONMENTS])
    chosen = [{"set": case, "python": dict(zip(URLS, run(CHOOSE, case, json.dumps(URLS))))} for case in PROXIES]
    write(folder / "hub-proxy.json", comment, chosen)
