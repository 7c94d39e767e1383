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


@pytest.mark.parametrize(("family", "kind"), [("gpt2", "permuted"), ("gpt_neox", "random")])
def test_ablation_makes_a_twin_again_from_its_name(run: Run, tmp_path: Path, family: str, kind: str) -> None:
    """GPT-2's unembedding is its embedding, GPT-NeoX has one of its own. The values on the lines are compared
    with those of the subject that is ablated, so another seed's twin would be an error of every unit."""
    folder = save(build(family, seed=2), tmp_path / "tiny")
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"the cat {n} sat on the mat {n * 7} and the dog {n * 13}" for n in range(90))
    )
    record = (
        f"nx-record --subject {folder} --twin {kind} --seed 4 --context 8 --excerpt 8 --document-tokens 8"
    )
    ablate = f"nx-score --method ablation --baselines none --subject {folder}"
    done = run(f"{record} --units 0:3,1:5 {text} | nx-top | nx-explain | {ablate}")
    assert done.returncode == 0, done.stderr
    units = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [unit["unit"]["subject"] for unit in units] == [f"tiny~{kind}-4"] * 2
    for unit in units:
        (score,) = unit["explanations"][0]["scores"]
        assert score["jsd"]["top_and_random"]["mean"] > 0 and "error" not in score

    unit["unit"]["subject"] = f"tiny~{kind}-5"
    other = run(f"nx-score --method ablation --subject {folder} --refresh", stdin=orjson.dumps(unit) + b"\n")
    assert other.returncode == 4
    assert f"is not the subject whose {kind} twin these units are of" in other.stderr.decode()


def test_the_twin_of_a_whole_model_has_the_parts_of_its_twin(folder: Path) -> None:
    for family in ("gpt2", "gpt_neox"):
        for twin in (Twin("permuted", 1), Twin("random", 1)):
            whole, own = build(family, seed=2), dict(build(family, seed=2).named_parameters())
            part = build(family, seed=2).base_model
            twin.take_over(whole.base_model, whole)
            twin.take_over(part)
            for one, other in zip(whole.base_model.parameters(), part.parameters(), strict=True):
                assert torch.equal(one, other)
            changed = {name for name, now in whole.named_parameters() if not torch.equal(now, own[name])}
            assert {name for name, now in own.items() if now.ndim >= 2} <= changed
