"""A host on one Ethernet link, without I/O: `Host` takes and gives frames; ARP, IP, ICMP, UDP and TCP are inside."""

from bootwire.engine.ip.frame import Frame, Offload
from bootwire.engine.ip.host import Conflict, EchoReply, Flow, Host, Listener, UdpPort, Undelivered
from bootwire.engine.ip.routes import Route, Routes

__all__ = [
    "Conflict",
    "EchoReply",
    "Flow",
    "Frame",
    "Host",
    "Listener",
    "Offload",
    "Route",
    "Routes",
    "UdpPort",
    "Undelivered",
]
