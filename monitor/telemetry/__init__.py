"""Metrics. The only importer of prometheus_client."""
