"""The audit of a network: its outputs and features, the attacks, and all figures together."""
