"""Metrics for Prometheus and traces for OpenTelemetry, of what `domain.watching` is told."""
