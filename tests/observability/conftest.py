"""The broker of the Kafka tests, for the tests here that need one."""

from tests.kafka.conftest import bootstrap, client, cluster

__all__ = ["bootstrap", "client", "cluster"]
