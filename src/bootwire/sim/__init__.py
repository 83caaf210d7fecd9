"""Virtual time: hosts on a simulated LAN. Same seed, same octets."""
