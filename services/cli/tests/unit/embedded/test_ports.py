"""Ports are kept while free and never given twice."""

import socket

from boardwright.cli.embedded.ports import LOOPBACK, pick_ports


def test_each_name_gets_a_port_of_its_own() -> None:
    ports = pick_ports(["a", "b", "c"], {})
    assert len(set(ports.values())) == 3


def test_a_port_is_kept_while_it_is_free_and_replaced_when_not() -> None:
    first = pick_ports(["a", "b"], {})
    assert pick_ports(["a", "b"], first) == first
    with socket.socket() as taken:
        taken.bind((LOOPBACK, first["a"]))
        taken.listen()
        second = pick_ports(["a", "b"], first)
    assert second["a"] != first["a"] and second["b"] == first["b"]
