"""nx-score: how well explanations predict activations on held-out excerpts."""

from __future__ import annotations

import importlib
from typing import Any

import click

from nxtools.commands._ablation import ablation_options, check_no_ablation
from nxtools.commands._assistants import MODELS, assistant_options, simulation_option
from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._judging import METHODS as JUDGED
from nxtools.commands._judging import check_no_judging, judging_options

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain | nx-score > scored.jsonl
nx-score --baselines none explained.jsonl | jq '.explanations[0].scores[0].top_and_random'
nx-score --simulator llama:qwen2.5-7b-instruct-q4_k_m.gguf explained.jsonl
nx-score --method ablation --subject samples/pydoc-1m explained.jsonl
"""

# Each in a module with `run(shared, options)`, which is imported when it is asked for.
METHODS = {
    "correlation": "nxtools.commands._correlation",
    "ablation": "nxtools.commands._ablation",
    **dict.fromkeys(JUDGED, "nxtools.commands._judging"),
}


@command(
    "nx-score",
    examples=EXAMPLES,
    takes="unit lines with explanations, from nx-explain or nx-simulate",
    gives="the same lines with scores beside each explanation, baselines and a null",
)
@inputs_argument
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="correlation",
    show_default=True,
    envvar="NXTOOLS_SCORE_METHOD",
    help="What is measured.",
)
@click.option(
    "--baselines",
    type=click.Choice(["all", "null", "none"]),
    default="all",
    show_default=True,
    help="Score the token table, token list and null beside the explanation, only the null, or nothing.",
)
@click.option(
    "--explanations-from", metavar="FILE", help="Score the explanations of another run on these units."
)
@click.option(
    "--map",
    type=click.Choice(["same", "shift"]),
    default="same",
    show_default=True,
    help="Whose explanation of that run a unit gets: its namesake's, or the next one's in the layer.",
)
@click.option(
    "--ratings",
    multiple=True,
    metavar="FILE",
    help="Put what people said of explanations beside them, and say how scores agree; may be repeated.",
)
@click.option(
    "--calibration",
    type=click.Choice(["none", "linear", "isotonic", "quantile", "scored"]),
    help="Say also what share of the variance is explained, and when the unit fires, after this.",
)
@click.option(
    "--simulator",
    default="pattern",
    show_default=True,
    metavar="MODEL",
    help=f"Who predicts what has no simulation yet: {MODELS}; pattern runs the sentence.",
)
@simulation_option(
    "--simulation", envvar="NXTOOLS_METHOD", help="How a model predicts: nx-simulate --method."
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(0),
    default=0,
    help="Processes  [default: as many as cores], or calls of an API under way  [default: 8].",
)
@assistant_options
@ablation_options
@judging_options
@click.option(
    "--literals",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Tokens that the token list may name.",
)
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Score explanations: the correlation of predicted and true activations over held-out excerpts, with an
    interval. What has no simulation yet is simulated by running its pattern. At the end the means of the run
    are printed on stderr, beside baselines and the null: the explanation of the unit before in its layer.
    """
    shared = Shared.of("nx-score", options)
    method = options["method"]
    if method != "ablation":
        check_no_ablation()
    if method not in JUDGED:
        check_no_judging()
    return int(importlib.import_module(METHODS[method]).run(shared, options))
