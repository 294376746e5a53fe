"""The Grafana files as code: ``python -m deploy.grafana.source`` writes them anew."""
