"""Objects of the paper's public data set, as hypothesis draws them; names and numbers of our own making."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Record = dict[str, Any]


def ordered(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Record]:
    """Objects with these fields in this order."""
    return st.tuples(*fields.values()).map(lambda values: dict(zip(fields, values, strict=True)))


numbers = st.one_of(st.none(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False))
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def activation_records(draw: st.DrawFn) -> Record:
    tokens = draw(st.lists(words, min_size=1, max_size=12))
    values = draw(st.lists(numbers, min_size=len(tokens), max_size=len(tokens)))
    return {"tokens": tokens, "activations": values, "dataclass_name": "ActivationRecord"}


def some(strategy: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=most)


neuron_ids = ordered(
    {
        "layer_index": st.integers(0, 99),
        "neuron_index": st.integers(0, 9999),
        "dataclass_name": st.just("NeuronId"),
    }
)

neuron_records = ordered(
    {
        "neuron_id": neuron_ids,
        "random_sample": some(activation_records()),
        "random_sample_by_quantile": st.one_of(st.none(), some(some(activation_records(), 2), 2)),
        "quantile_boundaries": st.one_of(st.none(), some(numbers)),
        "mean": numbers,
        "variance": numbers,
        "skewness": numbers,
        "kurtosis": numbers,
        "most_positive_activation_records": some(activation_records()),
        "dataclass_name": st.just("NeuronRecord"),
    }
)


def rows(count: int) -> st.SearchStrategy[list[list[Any]]]:
    return st.lists(some(numbers, 3), min_size=count, max_size=count)


@st.composite
def sequence_simulations(draw: st.DrawFn, tokens: list[str], depth: int = 1) -> Record:
    size = len(tokens)
    return {
        "tokens": tokens,
        "expected_activations": draw(st.lists(numbers, min_size=size, max_size=size)),
        "activation_scale": draw(st.sampled_from(["neuron_activations", "simulated_normalized_activations"])),
        "distribution_values": draw(rows(size)),
        "distribution_probabilities": draw(rows(size)),
        "uncalibrated_simulation": draw(st.one_of(st.none(), sequence_simulations(tokens, depth - 1)))
        if depth
        else None,
        "dataclass_name": "SequenceSimulation",
    }


scores = dict.fromkeys(("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"), numbers)


@st.composite
def scored_sequences(draw: st.DrawFn) -> Record:
    record = draw(activation_records())
    return {
        "simulation": draw(sequence_simulations(record["tokens"])),
        "true_activations": record["activations"],
        **{name: draw(number) for name, number in scores.items()},
        "dataclass_name": "ScoredSequenceSimulation",
    }


scored_explanations = ordered(
    {
        "explanation": words,
        "scored_simulation": ordered(
            {
                "scored_sequence_simulations": some(scored_sequences(), 3),
                **scores,
                "dataclass_name": st.just("ScoredSimulation"),
            }
        ),
        "dataclass_name": st.just("ScoredExplanation"),
    }
)

simulation_results = ordered(
    {
        "neuron_id": neuron_ids,
        "scored_explanations": st.lists(scored_explanations, min_size=1, max_size=2),
        "dataclass_name": st.just("NeuronSimulationResults"),
    }
)


def second_dialect(value: Any) -> Any:
    """The same object in the other order and names of the format's second dialect."""
    if isinstance(value, list):
        return [second_dialect(one) for one in value]
    if not isinstance(value, dict):
        return value
    changed = {key: second_dialect(one) for key, one in reversed(value.items())}
    if value.get("dataclass_name") == "ScoredSequenceSimulation":
        changed["sequence_simulation"] = changed.pop("simulation")
    if value.get("dataclass_name") == "NeuronId":
        changed["layer_index"] = str(value["layer_index"])
    return changed


# Neuronpedia

json_values = st.recursive(
    st.one_of(numbers, st.booleans(), words), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
extra = st.dictionaries(words.map(lambda name: f"x{name}"), json_values, max_size=2)


@st.composite
def neuronpedia_lines(draw: st.DrawFn) -> list[Record]:
    """Lines of all kinds about some features, in any order."""
    found: list[Record] = []
    for index in draw(st.lists(st.integers(0, 30_000), unique=True, min_size=1, max_size=3)):
        named = {"modelId": "gpt2-small", "layer": "6-res-jb", "index": str(index)}
        feature = {
            "maxActApprox": draw(numbers),
            "frac_nonzero": draw(numbers),
            "vector": draw(some(numbers)),
        }
        found.append(named | feature | draw(extra))
        for record in draw(some(activation_records())):
            bins = {"binMin": draw(numbers), "binMax": draw(numbers)} if draw(st.booleans()) else {}
            values = {"tokens": record["tokens"], "values": record["activations"], "maxValue": draw(numbers)}
            found.append(named | values | bins | draw(extra))
        for text in draw(some(words, 2)):
            kind = {"typeName": draw(words), "explanationModelName": draw(st.one_of(st.none(), words))}
            found.append(named | {"description": text} | kind | draw(extra))
    return draw(st.permutations(found))
