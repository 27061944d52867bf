"""The JavaScript client under Node: its own tests against a real server, and the tarball as others install it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[2] / "clients" / "js"
TYPED = """
import { ApiError, LimnerClient, type Answer, type Models } from "limner-client";

const client = new LimnerClient(process.argv[2]!, { retries: 1 });
const answer: Answer = await client.generate({ model: "digits", label: 1, seed: 2n ** 63n - 1n, format: "json" });
const [picture] = answer.images();
const models: Models = await client.models();
const refusal = await client.generate({ n: 0 }).catch((error: unknown) => error);
// @ts-expect-error: no such format
const wrong = () => client.generate({ format: "gif" });
// @ts-expect-error: a link without a seed
const unsaid = () => client.link({ n: 1 });
console.log(JSON.stringify({
  seed: answer.seed,
  label: picture!.class,
  png: picture!.png.length,
  models: models.models.length,
  field: refusal instanceof ApiError ? refusal.field : typeof wrong + typeof unsaid,
}));
"""
GLOBALS = "declare const process: { argv: string[] };\n"


@pytest.fixture(scope="module")
def node(program: Callable[..., Path]) -> Path:
    return program("node", "Debian's package nodejs")


def test_its_own_tests_pass_against_a_real_server(node: Path, url: str, environment: dict[str, str]) -> None:
    tests = HERE / "limner-client.test.js"
    run = [node, "--test", "--test-reporter=tap", tests]
    done = subprocess.run(run, env=environment | {"LIMNER_URL": url}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"# pass {tests.read_text().count(chr(10) + 'test(')}\n" in done.stdout


def test_the_packed_tarball_installs_type_checks_and_runs(
    node: Path, program: Callable[..., Path], url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    npm = program("npm", "Debian's package npm")
    tsc = program("tsc", "npm's package typescript (npm install in clients/js)", PACKAGE / "node_modules" / ".bin")

    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    [packed] = json.loads(run(npm, "pack", "--json", "--pack-destination", tmp_path, cwd=PACKAGE))
    files = {file["path"] for file in packed["files"]}
    assert files == {"package.json", "README.md", "limner-client.js", "limner-client.d.ts"}
    (tmp_path / "package.json").write_text('{"type": "module"}')
    run(npm, "install", "--offline", "--no-audit", "--no-fund", tmp_path / packed["filename"])
    (tmp_path / "typed.ts").write_text(GLOBALS + TYPED)
    run(tsc, "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom", "typed.ts")
    said = json.loads(run(node, "typed.js", url))
    png = httpx.get(f"{url}/generate?model=digits&label=2&seed={2**63 - 1}").content  # index 1 is the class named 2
    assert said == {"seed": str(2**63 - 1), "label": "2", "png": len(png), "models": 2, "field": "n"}


def test_the_server_has_the_module_where_the_playground_looks(http: httpx.Client) -> None:
    response = http.get("/js/limner-client.js")
    assert response.headers["Content-Type"].startswith("text/javascript")
    assert response.content == (PACKAGE / "limner-client.js").read_bytes()
    for path in ("/js/package.json", "/js/"):
        assert http.get(path).status_code == 404
