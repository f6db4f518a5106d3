/* What an init has to do before it can serve. */
#pragma once

/* Leaves the initramfs, mounts what a system has, brings up the loopback. Fatal when it fails. */
void init_system(void);
/* The device of the virtio-serial port of this name; waits for it. Fatal when it does not come. */
const char *init_find_port(const char *name);
