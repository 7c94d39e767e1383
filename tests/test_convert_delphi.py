"""nx-convert --from delphi: cached latents as unit lines, and caches that cannot be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import ROOT, Run
from safetensors.numpy import save_file

from nxtools.errors import InputError
from nxtools.interop.delphi import SHOWN, WINDOW, units
from nxtools.records import SETS, check_unit, excerpts_of, tabulate
from nxtools.stream import dump

TEXTS = [f"<{number}>" for number in range(50)]
START, WIDTH = 100, 4
Record = dict[str, Any]


def dense(seed: int = 0, contexts: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (contexts, 80), the last 16 of which make no excerpt, and activations (latents, …)."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(len(TEXTS), size=(contexts, 80))
    tokens[contexts // 2] = tokens[0]  # a text that is there twice
    values = np.where(
        rng.random((WIDTH, *tokens.shape)) < 0.02, rng.uniform(0.5, 9, (WIDTH, *tokens.shape)), 0
    )
    values[2] = 0  # never fires
    return tokens, values.astype(np.float16)


def cache(folder: Path, **changed: Any) -> Path:
    """A cache as Delphi writes it, but for what is changed; a None leaves a tensor out."""
    tokens, values = dense()
    latent, context, position = np.nonzero(values)
    shuffled = np.random.default_rng(1).permutation(len(latent))
    locations = np.stack([context, position, latent], axis=1)[shuffled].astype(np.uint16)
    tensors = {
        "locations": locations,
        "activations": values[latent, context, position][shuffled],
        "tokens": tokens,
        **changed,
    }
    hook = folder / "latents" / "layers.5"
    hook.mkdir(parents=True)
    path = hook / f"{START}_{START + WIDTH - 1}.safetensors"
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items() if t is not None}, path)
    (hook / "config.json").write_text('{"model_name": "org/model", "cache_ctx_len": 80}')
    return path


def test_every_latent_that_fires_is_a_unit_with_its_numbers(tmp_path: Path) -> None:
    cache(tmp_path)
    tokens, values = dense()
    found = list(units([str(tmp_path)], TEXTS, "unnamed"))
    assert [unit["unit"]["index"] for unit in found] == [START, START + 1, START + 3]
    for unit, latent in zip(found, (0, 1, 3), strict=True):
        check_unit(unit)
        wide = values[latent].astype(np.float64)
        assert unit["unit"]["subject"] == "org/model" and unit["unit"]["layer"] == 5
        assert unit["stats"]["mean"] == pytest.approx(wide.mean(), abs=1e-9)
        assert unit["stats"]["variance"] == pytest.approx(wide.var(), abs=1e-9)
        assert (unit["stats"]["max"], unit["stats"]["tokens"]) == (wide.max(), wide.size)
        for excerpt in unit["excerpts"]:
            at = slice(excerpt["start"], excerpt["start"] + WINDOW)
            copies = np.flatnonzero((tokens[:, at] == excerpt["ids"]).all(1))
            assert any(np.array_equal(excerpt["activations"], values[latent, p, at]) for p in copies)
            assert excerpt["tokens"] == [TEXTS[token] for token in excerpt["ids"]]


def test_sets_are_by_context_a_text_is_shown_once_and_top_ones_are_the_highest(tmp_path: Path) -> None:
    cache(tmp_path)
    for unit in (orjson.loads(dump(unit)) for unit in units([str(tmp_path)], TEXTS, "unnamed")):
        homes: dict[str, set[str]] = {}
        for excerpt in unit["excerpts"]:
            homes.setdefault(excerpt["document"], set()).add(excerpt["set"])
        assert all(len(sets) == 1 for sets in homes.values())
        ids = [tuple(excerpt["ids"]) for excerpt in unit["excerpts"]]
        assert len(set(ids)) == len(ids)
        for name in SETS:
            tops = excerpts_of(unit, [name], ["top"])
            heights = np.nanmax(tabulate(tops).activations, axis=1)
            assert len(tops) == len(excerpts_of(unit, [name], ["random"])) == SHOWN[name]
            assert list(heights) == sorted(heights, reverse=True)
            rest = np.nanmax(tabulate(excerpts_of(unit, [name], ["random"])).activations, axis=1)
            assert rest.max() <= heights[-1]


def test_latents_and_their_explanations_are_scored(run: Run, tmp_path: Path) -> None:
    """Latent 100 fires on one token, and its explanation says which."""
    tokens, values = dense()
    values[0] = np.where(tokens == 7, 5, 0)
    latent, context, position = np.nonzero(values)
    locations = np.stack([context, position, latent], axis=1).astype(np.uint32)
    cache(tmp_path, locations=locations, activations=values[latent, context, position])
    sample = ROOT / "samples" / "pydoc-1m"
    convert = f"nx-convert --from delphi --tokenizer {sample} {tmp_path}"
    vocabulary = orjson.loads((sample / "tokenizer.json").read_bytes())["model"]["vocab"]
    (seven,) = (text for text, number in vocabulary.items() if number == 7)
    (tmp_path / "explanations").mkdir()
    text = orjson.dumps(f"{orjson.dumps(seven).decode()} (10)")
    (tmp_path / "explanations" / "layers.5_latent100.txt").write_bytes(text)
    done = run(f"{convert} | nx-score -q --baselines none")
    assert done.returncode == 0 and done.stderr == b"nx-convert: 3 units from delphi\n"
    scored = [orjson.loads(line) for line in done.stdout.splitlines()]
    (explanation,) = scored[0]["explanations"]
    assert explanation["by"] == {"explainer": "delphi"}
    assert explanation["scores"][0]["top_and_random"] == 1


BAD: dict[str, tuple[Record, str]] = {
    "no tokens": ({"tokens": None}, "there is no tensor 'tokens'"),
    "numbers for places": ({"locations": np.zeros((3, 3))}, "'locations' is float64 of shape (3, 3)"),
    "places for numbers": ({"activations": np.zeros(3, np.int64)}, "'activations' is int64 of shape (3,)"),
    "too few places": ({"locations": np.zeros((2, 3), np.uint16)}, "(2, 3) locations of"),
    "a place outside": (
        {"locations": np.array([[0, 0, 4]]), "activations": np.ones(1, np.float16)},
        "a location is outside of its contexts, positions or latents",
    ),
    "a negative place": (
        {"locations": np.array([[0, -1, 0]]), "activations": np.ones(1, np.float16)},
        "a location is outside",
    ),
    "not a number": (
        {"locations": np.array([[0, 0, 0]]), "activations": np.full(1, np.nan, np.float16)},
        "an activation is not finite",
    ),
    "a token of another model": (
        {"tokens": np.full((60, 80), 10**6)},
        "is not in the tokenizer's vocabulary",
    ),
    "short contexts": (
        {"tokens": np.zeros((60, 8), int), "locations": np.zeros((0, 3), int), "activations": np.zeros(0)},
        "contexts have 8 tokens, fewer than the 32",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_said(run: Run, tmp_path: Path, what: str) -> None:
    changed, message = BAD[what]
    path = cache(tmp_path, **changed)
    with pytest.raises(InputError) as caught:
        list(units([str(tmp_path)], TEXTS, "unnamed"))
    assert message in str(caught.value) and caught.value.where == str(path)


def test_other_files_and_no_tokenizer(run: Run, tmp_path: Path) -> None:
    done = run("nx-convert", "--from", "delphi", tmp_path)
    assert (done.returncode, b"--tokenizer DIR" in done.stderr) == (2, True)
    path = cache(tmp_path)
    path.write_bytes(b"\x80\x04pickled")
    with pytest.raises(InputError, match="cannot be read"):
        list(units([str(tmp_path)], TEXTS, "unnamed"))
    path.rename(path.with_name("other.safetensors"))
    with pytest.raises(InputError, match="not called START_END"):
        list(units([str(tmp_path)], TEXTS, "unnamed"))
