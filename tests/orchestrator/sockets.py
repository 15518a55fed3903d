"""Addresses that the processes of a run listen on, and a check that only this machine reaches them."""

from __future__ import annotations

import ipaddress

import psutil

from tests.orchestrator.runs import Workplace, describe


def listening(place: Workplace) -> dict[str, set[str]]:
    """The addresses on which the processes of a run accept connections, by process."""
    by_name: dict[str, set[str]] = {}
    for process in place.processes():
        try:
            connections = process.net_connections(kind="inet")
        except psutil.Error:
            continue
        addresses = {each.laddr.ip for each in connections if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)}
        if addresses:
            by_name[describe(process)] = addresses
    return by_name


def local(address: str) -> bool:
    """Return whether only this machine can reach an address."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def hold_to_loopback(by_name: dict[str, set[str]]) -> None:
    """Fail unless the processes of a Ray are among them, and all listen where this machine alone reaches them."""
    processes = " ".join(by_name)
    assert all(name in processes for name in ("gcs_server", "raylet", "dashboard")), processes
    reached = {name: addresses for name, addresses in by_name.items() if not all(map(local, addresses))}
    assert reached == {}, reached
