"""Unlearning methods: one file here, one YAML in `conf/method/`, nothing else to register."""
