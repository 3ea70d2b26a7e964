"""Runs on Kubernetes: manifests, the API, following a run, collecting and deleting it."""
