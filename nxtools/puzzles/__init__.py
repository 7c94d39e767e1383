"""Units that were made up: what they react to is known, so explainers and simulators can be measured."""
