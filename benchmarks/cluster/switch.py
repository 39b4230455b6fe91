"""A switch in user space with a rate, a delay, jitter and loss, for kernels without tc's netem.

    switch.py ADDRESSES RATE DELAY JITTER LOSS PROCESS...    bits/s, seconds, seconds, share
    switch.py tell rate BITS [PORT] | down PORT | up PORT

It makes a device eth0 in the network of each process, the k-th with the k-th address, and runs in
the network of the first, whose port has no limit. A packet waits until its sender's port is free,
takes bytes / rate there, waits for the receiver's, and arrives DELAY later, and up to JITTER more,
in order. A port that is behind is not read, as an adapter does; a receiver that is far behind drops
packets. Segmentation offload stays on: the kernel hands over up to 64 KB at once, which are counted
with the headers of each segment.
"""

import fcntl
import gc
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from itertools import count

#: <linux/if_tun.h>
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
CHECKSUM, TCP4 = 0x01, 0x02
HEADER = struct.Struct("<BBHHHH")  # virtio_net_hdr: flags, type, header, segment size, checksum
FRAME, HEADERS = 38, 52  # bytes on the wire around a packet; IP and TCP headers of a segment
AHEAD, BACKLOG = 300e-6, 0.2  # seconds that a sender may be ahead, a receiver behind
CONTROL = "\0minicnn-switch"  # an abstract socket: of the network that the switch runs in
UNLIMITED = 4e11


class Port:
    """A node's end of its cable: the device, and when what was sent through it has passed."""

    def __init__(self, device, rate):
        self.device, self.rate, self.plugged = device, rate, True
        self.sent = self.received = self.last = 0.0


def tun(process, address):
    """Make the device eth0 in the network of a process; return its file."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(device, TUNSETVNETHDRSZ, struct.pack("i", HEADER.size))
    fcntl.ioctl(device, TUNSETOFFLOAD, CHECKSUM | TCP4)
    name = fcntl.ioctl(device, 0x800454D2, bytes(40))[:16].rstrip(b"\0").decode()  # TUNGETIFF
    for command in (
        f"ip link set {name} netns {process} name eth0 txqueuelen 1000",
        f"nsenter --net=/proc/{process}/ns/net ip addr add {address}/24 dev eth0",
        f"nsenter --net=/proc/{process}/ns/net ip link set eth0 up",
        f"nsenter --net=/proc/{process}/ns/net ip link set lo up",
    ):
        subprocess.run(command.split(), check=True)
    return device


class Switch:
    """ports: {last byte of the address: Port}."""

    def __init__(self, ports, delay, jitter, loss):
        self.ports, self.delay, self.jitter, self.loss = ports, delay, jitter, loss
        self.waiting, self.number = [], count()  # a heap of (due, number, port, packet)

    def take(self, port, packet, now):
        """Put a packet that came in at a port on its way."""
        start = HEADER.size
        if len(packet) < start + 20 or packet[start] >> 4 != 4:  # no IPv4
            return
        to = self.ports.get(packet[start + 19])
        if to is None or not (port.plugged and to.plugged) or random.random() < self.loss:
            return
        size, length = HEADER.unpack_from(packet)[3], len(packet) - start
        segments = -(-length // size) if size else 1
        bits = 8 * (length + FRAME * segments + HEADERS * (segments - 1))
        port.sent = max(port.sent, now) + bits / port.rate
        # Cut through: the receiver's cable is busy while the bytes come in.
        end = max(port.sent, to.received + bits / to.rate)
        if end - port.sent > BACKLOG:
            return
        to.received = end
        to.last = max(to.last, end + self.delay + self.jitter * random.random())
        heapq.heappush(self.waiting, (to.last, next(self.number), to, packet))

    def deliver(self, now):
        """Hand over what is due."""
        while self.waiting and self.waiting[0][0] <= now:
            _, _, port, packet = heapq.heappop(self.waiting)
            if port.plugged:
                try:
                    os.write(port.device, packet)
                except OSError:
                    pass  # its queue is full, as an adapter drops

    def obey(self, words):
        """Do what ``tell`` said."""
        what, numbers = words[0], [float(word) for word in words[1:]]
        if what == "rate":
            for key in numbers[1:] or list(self.ports)[1:]:  # the first is the head's
                self.ports[int(key)].rate = numbers[0]
        else:
            self.ports[int(numbers[0])].plugged = what == "up"

    def run(self, control):
        """Forward packets for ever."""
        clock, read = time.monotonic, os.read
        devices = {port.device: port for port in self.ports.values()}
        while True:
            now = clock()
            self.deliver(now)
            ready = [d for d, port in devices.items() if port.sent - AHEAD <= now]
            wake = [port.sent - AHEAD for port in devices.values() if port.sent - AHEAD > now]
            wake += [self.waiting[0][0]] if self.waiting else []
            pause = max(0.0, min(wake) - clock()) if wake else None
            for source in select.select([*ready, control], [], [], pause)[0]:
                if source is control:
                    self.obey(control.recv(4096).decode().split())
                    continue
                port = devices[source]
                for _ in range(8):
                    try:
                        packet = read(source, 70_000)
                    except BlockingIOError:
                        break
                    self.take(port, packet, clock())
                    if port.sent - AHEAD > clock():
                        break


def main(addresses, rate, delay, jitter, loss, *processes):
    ports = {}
    for address, process in zip(addresses.split(","), processes):
        limit = UNLIMITED if process == processes[0] else float(rate)
        ports[int(address.rpartition(".")[2])] = Port(tun(process, address), limit)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(CONTROL)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # a switch waits for nobody
    gc.disable()
    print("ready", flush=True)
    Switch(ports, float(delay), float(jitter), float(loss)).run(control)


if __name__ == "__main__":
    if sys.argv[1] == "tell":
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(
            " ".join(sys.argv[2:]).encode(), CONTROL
        )
    else:
        main(*sys.argv[1:])
