"""Twins of a subject: the same shape, nothing learned, and no mistaking one for another."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch
from conftest import Run
from tiny_models import build, save

from nxtools.subject.identity import resolve
from nxtools.subject.twin import Twin
from nxtools.subject.wanted import Model


class Forgets:
    def get(self, key: str, /) -> str | None:
        return None

    def put(self, key: str, value: str, /) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(build("gpt2", seed=5), tmp_path_factory.mktemp("twins") / "tiny")


def model(folder: Path, twin: Twin | None) -> Model:
    return Model(resolve(str(folder)), "float32", "cpu", None, False, False, twin)


def weights(folder: Path, twin: Twin | None) -> dict[str, torch.Tensor]:
    return dict(model(folder, twin).load().model.named_parameters())


def test_a_permuted_twin_has_the_same_numbers_in_other_places(folder: Path) -> None:
    own, twin = weights(folder, None), weights(folder, Twin("permuted", 0))
    assert own.keys() == twin.keys()
    for name, parameter in own.items():
        assert torch.equal(parameter.flatten().sort()[0], twin[name].flatten().sort()[0])
        assert torch.equal(parameter, twin[name]) == (parameter.ndim < 2)


def test_a_random_twin_is_a_fresh_model(folder: Path) -> None:
    twin = weights(folder, Twin("random", 3))
    fresh = dict(build("gpt2", seed=3).base_model.named_parameters())
    for name, parameter in weights(folder, None).items():
        assert twin[name].shape == parameter.shape
        if parameter.ndim >= 2:
            assert not torch.equal(twin[name], parameter)
            assert abs(float(twin[name].std() / fresh[name].detach().std()) - 1) < 0.2


@pytest.mark.parametrize("kind", ["permuted", "random"])
def test_a_seed_gives_one_twin_and_leaves_chance_alone(folder: Path, kind: str) -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    one, same, other = (weights(folder, Twin(kind, seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_twins_have_names_and_fingerprints_of_their_own(folder: Path) -> None:
    twins = [None, *(Twin(kind, seed) for kind in ("permuted", "random") for seed in (0, 1))]
    models = [model(folder, twin) for twin in twins]
    assert len({one.fingerprint(Forgets()) for one in models}) == len({one.name for one in models}) == 5
    again = [model(folder, twin).fingerprint(Forgets()) for twin in twins]
    assert again == [one.fingerprint(Forgets()) for one in models]


def test_nx_record_records_the_twin_and_not_the_subject(run: Run, folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"the cat {n} sat on the mat {n * 7} and the dog {n * 13}" for n in range(60))
    )
    record = f"nx-record --subject {folder} --context 8 --excerpt 8 --document-tokens 8 --layers 1 {text}"
    names, maxima = [], []
    for twin in ("", "--twin permuted", "--twin permuted", "--twin random"):
        done = run(f"{record} {twin} | nx-top")
        assert done.returncode == 0, done.stderr
        units = [orjson.loads(line) for line in done.stdout.splitlines()]
        names.append(units[0]["unit"]["subject"])
        maxima.append([unit["stats"]["max"] for unit in units])
    assert names == ["tiny", "tiny~permuted-0", "tiny~permuted-0", "tiny~random-0"]
    assert maxima[1] == maxima[2] and maxima[0] != maxima[1] != maxima[3] != maxima[0]
