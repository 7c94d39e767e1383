"""Explanations in words, revised by language models: the whole loop against a subject that is known."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gguf_model
import orjson
import pytest
import revising
from conftest import Run, shell
from fault_server import FaultServer, chat

from nxtools.stream import dump

Record = dict[str, Any]

NAIVE, EXACT = "the word “all”", "the word “all” behind “not”"
SETTINGS = "--context 16 --excerpt 16 --pool 30,20,20 --document-tokens 30 --batch 4"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path, Path]:
    """The unit's line, with an explanation that sees only "all"; the subject; and the store."""
    folder = tmp_path_factory.mktemp("revised")
    subject, text = revising.save(folder / "subject"), folder / "stories.txt"
    text.write_text("\n\n".join(revising.story(seed) for seed in range(150)))
    done = shell(f"nx-record -q --subject {subject} {SETTINGS} {text} | nx-top -q", folder / "cache")
    return done.stdout, subject, folder / "cache"


@pytest.fixture
def line(recorded: tuple[bytes, Path, Path], environment: dict[str, str]) -> bytes:
    shutil.copytree(recorded[2], environment["NXTOOLS_CACHE"])
    return recorded[0]


@pytest.fixture
def subject(recorded: tuple[bytes, Path, Path]) -> Path:
    return recorded[1]


def told(line: bytes, text: str = NAIVE) -> bytes:
    """The unit with an explanation in words."""
    record = orjson.loads(line)
    record["explanations"] = [{"id": "a", "text": text, "by": {"explainer": "someone"}, "scale": 3.6}]
    return orjson.dumps(record) + b"\n"


# A model that sees only "all", writes what it is told to, and learns from what it is shown


def assistant(path: str, body: Record) -> Record:
    if path != "/v1/chat/completions":
        return {"error": {"message": "only chat"}, "status": 404}
    asked = body["messages"][-1]["content"]
    if tokens := re.findall(r"^(\d+): (.*)$", asked, re.MULTILINE):
        return chat(orjson.dumps(simulated(asked.splitlines()[0], [text for _, text in tokens])).decode())
    if asked.endswith("Sentences:"):
        return chat(written(asked))
    if "Further texts:" in asked:
        return chat(f"Explanation: {mended(asked)}")
    return chat("Hello!" if asked == "Say hello." else f"Explanation: {NAIVE}")


def simulated(heading: str, tokens: list[str]) -> Record:
    """Ten on each "all"; if the explanation speaks of "not", only behind it."""
    strict = "not" in heading
    before = ["", *tokens]
    return {
        str(number): 10 * (token == " all" and (not strict or before[number - 1] == " not"))
        for number, token in enumerate(tokens, start=1)
    }


def written(asked: str) -> str:
    begin = ["not all"] * 10 if "not" in asked.partition("Description:")[2] else ["all"] * 7 + ["not all"] * 3
    nouns = [*revising.NOUNS, "doors", "walls"]
    lines = [f"{n}. In the end {one} of the {nouns[n - 1]} fell." for n, one in enumerate(begin, start=1)]
    return "\n".join(["Here they are:", *lines])


def mended(asked: str) -> str:
    """What stands before an "all" that is marked, and not before one that is not."""
    old = re.findall(r"It was said to react to: (.*)", asked)[-1]
    evidence, _, texts = asked.rpartition("It was said")
    marked = set(re.findall(r"(\w+)<< all>>", evidence + texts))
    plain = set(re.findall(r"(\w+) all\b", texts))
    return EXACT if marked == {"not"} and plain - marked else old


# The whole loop


def revise(server: FaultServer, subject: Path, *more: str) -> str:
    words = ("nx-revise --explainer openai:m --base-url", server.url, "--subject", subject, *more)
    return " ".join(map(str, words))


def read(data: bytes) -> Record:
    (line,) = data.splitlines()
    return dict(orjson.loads(line))


@pytest.fixture(scope="module")
def revised(recorded: tuple[bytes, Path, Path]) -> tuple[Record, str, list[str]]:
    """The unit explained, revised and scored; what stderr said; and the last messages of all calls."""
    line, subject, cache = recorded
    with FaultServer(assistant) as server:
        model = f"openai:m --base-url {server.url}"
        pipe = (
            f"nx-explain --explainer {model} | {revise(server, subject, '--rounds 3')} "
            f"| nx-score --simulator {model} --baselines none"
        )
        done = shell(pipe, cache, line)
        asked = [body["messages"][-1]["content"] for path, body in server.requests if "messages" in body]
    return read(done.stdout), done.stderr.decode(), asked


def test_an_explainer_that_sees_only_all_finds_not_all_by_itself(
    revised: tuple[Record, str, list[str]],
) -> None:
    record, said, _ = revised
    new, old = record["explanations"]
    assert (old["text"], new["text"]) == (NAIVE, EXACT)
    assert [version["text"] for version in new["versions"]] == [NAIVE, EXACT]
    assert new["current"] == 1 and new["revises"] == old["id"] and old["revised"]
    assert new["why"].startswith("validation rose from ")
    assert new["why"].endswith("in round 2 the reviser said the same again")
    held_out, widened = new["revision"]["top_and_random"], new["revision"]["widened"]
    assert widened["before"] < held_out["before"] < held_out["after"]
    assert widened["before"] < widened["after"]
    # nx-score, which simulates for itself, says the same of the held-out excerpts.
    scores = [entry["scores"][0]["top_and_random"] for entry in (old, new)]
    assert scores == pytest.approx([held_out["before"], held_out["after"]], abs=1e-4)
    assert "1 of 1 explanations were replaced" in said
    assert "false positives: 70.0% of 10 sentences written for 1 units; 100.0% (95% 21% to 100%) of 1" in said


def test_sentences_are_measured_and_half_of_them_are_never_shown(
    revised: tuple[Record, str, list[str]],
) -> None:
    record, _, asked = revised
    new = record["explanations"][0]
    first = [one for one in new["sentences"] if one["round"] == 1]
    assert len(first) == 10 and [one["for"] for one in first].count("reviser") == 5
    assert all(one["fires"] == ("not all" in one["text"]) for one in new["sentences"])
    assert all((one["activation"] > 3) == one["fires"] for one in new["sentences"])
    silent = [one for one in new["counterexamples"] if one["round"] == 1]
    assert len(silent) == 7 and {one["sort"] for one in silent} == {"false-positive"}
    assert {"".join(one["tokens"]) for one in silent} == {one["text"] for one in first if not one["fires"]}
    to_mend = [one.replace("<<", "").replace(">>", "") for one in asked if "Further texts:" in one]
    assert len(to_mend) == 2  # a round that mends, and one that finds nothing to mend
    for one in new["sentences"]:
        assert any(one["text"] in content for content in to_mend) == (one["for"] == "reviser")


def test_killed_it_goes_on_where_it_was_and_a_second_run_asks_nobody(
    run: Run, subject: Path, line: bytes, environment: dict[str, str]
) -> None:
    jobs = 2

    def slowly(path: str, body: Record) -> Record:
        time.sleep(0.02)
        return assistant(path, body)

    with FaultServer(slowly) as server:
        sources = "generated,corpus,neighbours,random"
        command = revise(server, subject, "--from", sources, f"--rounds 2 -j {jobs}")
        child = subprocess.Popen(
            command.split(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
        )
        assert child.stdin is not None
        child.stdin.write(told(line))
        child.stdin.close()
        while len(server.whole) < 60:
            assert child.poll() is None
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        time.sleep(0.2)  # what was under way ends
        before = len(server.requests)

        done = run(command, stdin=told(line))
        assert done.returncode == 0, done.stderr
        bodies = [dump(body) for path, body in server.requests if body != server.requests[0][1]]
        assert len(bodies) - len(set(bodies)) <= jobs  # those under way when it was killed
        assert len(server.requests) > before + 20
        # The corpus and the neighbours had been read: only sentences are new.
        ran = re.search(rb"the subject was run over (\d+) texts", done.stderr)
        assert ran is None or int(ran[1]) <= 20
        sent = len(server.requests)
        program = (
            "import sys\n"
            f"sys.argv = {command.split()!r}\n"
            "from nxtools.commands.revise import main\n"
            "try:\n    main()\n"
            "except SystemExit as end:\n    assert not end.code, end.code\n"
            "loaded = {'torch', 'transformers', 'tokenizers'} & set(sys.modules)\n"
            "assert not loaded, loaded\n"
        )
        again = run(sys.executable, "-c", program, stdin=done.stdout)  # into the same, once more
        assert again.returncode == 0, again.stderr.decode()
        assert again.stdout == done.stdout and len(server.requests) == sent
    assert b"computed" not in again.stderr
    new = read(done.stdout)["explanations"][0]
    assert new["text"] == EXACT
    assert {one["from"] for one in new["counterexamples"]} >= {"generated", "corpus"}


def test_the_loop_runs_by_llama_cpp(run: Run, subject: Path, line: bytes, tmp_path: Path) -> None:
    """The weights are random, so the words mean nothing. One model has words, the other likely numbers."""
    writer, reader = tmp_path / "writer.gguf", tmp_path / "reader.gguf"
    gguf_model.write_gguf(writer)
    gguf_model.write_gguf(reader, vocabulary=gguf_model.sentencepiece())
    command = (
        f"nx-revise --explainer llama:{writer} --simulator llama:{reader} --with-option n_threads=1 "
        f"--subject {subject} --from generated,random -n 2 --examples 1 --excerpts 2"
    )
    explained = told(line, "words with a 7")
    done = run(command, stdin=explained)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    new, old = read(done.stdout)["explanations"]
    assert new["text"] == new["versions"][new["current"]]["text"] and old["revised"]
    assert len(new["sentences"]) >= 2 and len(new["versions"]) >= 2
    assert b"simulated all at once" in done.stderr
    again = run(f"{command} --offline", stdin=explained)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert b"computed" not in again.stderr
