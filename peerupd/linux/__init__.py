"""The only wing that touches the kernel and the service manager. The house stands without it."""
