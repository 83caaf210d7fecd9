"""A private network on this machine with real firmware in it: namespaces, third-party DHCP servers, QEMU."""
